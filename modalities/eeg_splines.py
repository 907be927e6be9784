"""What electrodes would have measured that were not there: spherical splines (Perrin et al. 1989), by MNE's interpolation."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np


def spline_weights(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weights [m, n] that make of n channels, at directions [n, 3] from the head's centre, those at directions [m, 3].

    The weights of a target sum to 1: another reference of the recording is the same reference of what is made of it.
    """
    return _weights(sources.astype(np.float64).tobytes(), targets.astype(np.float64).tobytes())


@lru_cache(maxsize=8)
def _weights(sources: bytes, targets: bytes) -> np.ndarray:
    """Of n recordings in which one channel is 1 and the others 0, what MNE makes for the targets: one weight after the other."""
    import mne

    given, wanted = (np.frombuffer(places).reshape(-1, 3) for places in (sources, targets))
    count, total = len(given), len(given) + len(wanted)
    names = [f"E{place}" for place in range(total)]
    with mne.use_log_level("ERROR"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = mne.create_info(names, 1000.0, "eeg")
        places = dict(zip(names, 0.1 * np.concatenate([given, wanted]), strict=True))
        info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
        info["bads"] = names[count:]
        recording = mne.io.RawArray(np.eye(total, count), info)
        recording.interpolate_bads(reset_bads=False, origin=(0.0, 0.0, 0.0))
    return recording.get_data()[count:]
