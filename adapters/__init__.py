"""One file per host model that a lens can be plugged into."""
