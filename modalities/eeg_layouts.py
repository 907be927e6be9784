"""Electrode orders of public data sets, as names of the 10-05 system.

- *imagenet-eeg*: the 128 channels of ImageNet-EEG (Spampinato et al., CVPR 2017), an actiCAP of 128, as an author lists them in
  github.com/perceivelab/eeg_visual_classification, issue 4 (2023-12-11): index 0 is Ch1=Fp1, index 127 is Ch128=I2. Checked
  against two public programs that hold the same 128 in the same order: a reader of this data set which cites that thread, and an
  amplifier client for the cap.
- *things-eeg2*: the 63 channels of THINGS-EEG2 (Gifford et al., NeuroImage 2022) in the order of NICE's preprocessing
  (arXiv 2308.13234), the same in the public code of several works on it. Fz, the reference, is not among them.
"""

from __future__ import annotations

_ACTICAP_32 = "Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 TP9 CP5 CP1 CP2 CP6 TP10 P7 P3 Pz P4 P8 PO9 O1 Oz O2 PO10"
_ACTICAP_64 = (
    "AF7 AF3 AF4 AF8 F5 F1 F2 F6 FT9 FT7 FC3 FC4 FT8 FT10 C5 C1 C2 C6 TP7 CP3 CPz CP4 TP8 P5 P1 P2 P6 PO7 PO3 POz PO4 PO8"
)
_ACTICAP_128 = (
    "Fpz F9 AFF5h AFF1h AFF2h AFF6h F10 FTT9h FTT7h FCC5h FCC3h FCC1h FCC2h FCC4h FCC6h FTT8h FTT10h TPP9h TPP7h CPP5h CPP3h "
    "CPP1h CPP2h CPP4h CPP6h TPP8h TPP10h POO9h POO1 POO2 POO10h Iz AFp1 AFp2 FFT9h FFT7h FFC5h FFC3h FFC1h FFC2h FFC4h FFC6h "
    "FFT8h FFT10h TTP7h CCP5h CCP3h CCP1h CCP2h CCP4h CCP6h TTP8h P9 PPO9h PPO5h PPO1h PPO2h PPO6h PPO10h P10 I1 OI1h OI2h I2"
)
_THINGS_EEG2 = (
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10 T7 C5 C3 C1 Cz C2 C4 C6 "
    "T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2"
)

LAYOUTS: dict[str, tuple[str, ...]] = {
    "imagenet-eeg": tuple(f"{_ACTICAP_32} {_ACTICAP_64} {_ACTICAP_128}".split()),
    "things-eeg2": tuple(_THINGS_EEG2.split()),
}
"""What the option `names` may be called instead of listed."""
