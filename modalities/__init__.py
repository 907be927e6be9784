"""One file per sensor; each is found through the entry-point group `vitlens.modalities`."""
