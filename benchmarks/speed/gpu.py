"""What `make gpu` runs on a CUDA device after goldens and `vitlens bench`: a training step, and its share of the peak (MFU).

python -m vitlens.benchmarks.speed.gpu [--batch 64] [--model vitlens-l-depth]
python -m vitlens.benchmarks.speed.gpu --look     # only: is there a CUDA device? Exit code 2 where there is none

The step is that of a lens: bf16 autocast, the ViT frozen, the contrastive loss to anchors that are there already, AdamW on what
trains. Operations are counted by torch while the step runs, attention's included; what a frozen weight spares is not work done.
Weights are random: speed does not depend on them. The peak is what the maker states for dense bf16.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlens.devices import chosen_device
from vitlens.display.table import Table
from vitlens.display.terminal import console, remark
from vitlens.encoder import LensEncoder, build_encoder
from vitlens.errors import OptionError
from vitlens.zoo import find_spec

PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Operations a second in dense bf16 by a part of the device's name, as the makers state them; the first that fits counts."""
WARM, TIMED = 3, 5


@dataclass(frozen=True)
class Step:
    """One training step: seconds, and operations counted in it."""

    name: str
    seconds: float
    operations: float

    def row(self, peak: float | None) -> tuple[str, ...]:
        """Its line of the table."""
        rate = self.operations / self.seconds
        return self.name, f"{1000 * self.seconds:.1f}", f"{rate / 1e12:.1f}", "" if peak is None else f"{100 * rate / peak:.1f} %"


def peak_of(name: str) -> float | None:
    """The stated peak of a device; None for one that is not in the list."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def measured_step(encoder: LensEncoder, x: Tensor, *, name: str, warm: int = WARM, timed: int = TIMED) -> Step:
    """Train on the batch `x` [b, ...] a few times; the shortest step counts."""
    from torch.utils.flop_counter import FlopCounterMode

    device, anchors = x.device, F.normalize(torch.randn(len(x), encoder.vit.embed_dim, device=x.device), dim=-1)
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    right = torch.arange(len(x), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            found = F.normalize(encoder(x).float(), dim=-1)
            scores = 100 * found @ anchors.T
            loss = (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(warm):
        step()
    seconds = []
    for _ in range(timed):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    encoder._compiled_call_impl = None  # operations are counted in the plain step, which does the same work
    with FlopCounterMode(display=False) as counter:
        step()
    return Step(name, min(seconds), float(counter.get_total_flops()))


def training_steps(model: str, batch: int, device: torch.device) -> list[Step]:
    """The step of the first lens of a model, plain and compiled.

    Raises:
        OptionError: a model without a lens.
    """
    spec = find_spec(model)
    lenses = [encoder for encoder in spec.encoders if encoder.modality != "image"]
    if not lenses:
        raise OptionError(f"model {model} has no lens to train; it has {', '.join(spec.modalities)}")
    sensor = lenses[0].modality
    reading = spec.modality(sensor)
    examples = [reading.transform(reading.example(seed)) for seed in range(8)]
    x = torch.stack([examples[place % 8] for place in range(batch)]).to(device)
    steps = []
    for compiled in (False, True):
        encoder = build_encoder(lenses[0]).to(device).train()
        if compiled:
            encoder.compile()
        steps.append(measured_step(encoder, x, name=f"{sensor}, batch {batch}{', compiled' if compiled else ''}"))
    return steps


def cuda_device() -> torch.device:
    """The CUDA device.

    Raises:
        OptionError: there is none; the reason, where torch knows one.
    """
    if not torch.cuda.is_available():
        try:
            chosen_device("cuda")
        except OptionError as error:
            raise OptionError(f"make gpu needs a CUDA device, and there is none: {error}") from error
    return torch.device("cuda")


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vitlens-l-depth")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--look", action="store_true", help="only say whether there is a CUDA device")
    arguments = parser.parse_args()
    try:
        device = cuda_device()
    except OptionError as error:
        remark(str(error))
        return 2
    name = torch.cuda.get_device_name(device)
    peak = peak_of(name)
    if arguments.look:
        remark(f"{name}, torch {torch.__version__}")
        return 0
    rows = [step.row(peak) for step in training_steps(arguments.model, arguments.batch, device)]
    head = ("training step", "ms", "TFLOP/s", "MFU")
    console().print(
        f"{name}: {'its peak is not listed' if peak is None else f'{peak / 1e12:.0f} TFLOP/s in dense bf16, as stated'}"
    )
    console().print(Table(head, rows, numbers=head[1:]).to_rich())
    return 0


if __name__ == "__main__":
    sys.exit(main())
