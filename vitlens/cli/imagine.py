"""`vitlens imagine`: make pictures, sounds, videos, 3D shapes or texts from files of any sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlens import checks
from vitlens.adapters.generate.decoder_cards import DecoderCard, decoder_cards
from vitlens.adapters.generate.outputs import check_path, kind_of
from vitlens.cli.chat import LensOption, open_host
from vitlens.cli.options import MODEL, DeviceOption, ModelOption, named_values, new_app
from vitlens.cli.streams import ReadOption, Streams, check_files, read_options, with_streams
from vitlens.display.table import Table
from vitlens.errors import InputError, OptionError
from vitlens.words import distinct

if TYPE_CHECKING:
    from vitlens.adapters.generate.decoders import Decoder
    from vitlens.model import ViTLens

app = new_app()
SHIPPED = {"vitlens-toybox": "vitlens.benchmarks.toybox.demo.paint:painting_decoder"}
"""Models that bring a decoder of their own."""
BY_TEXT = {"image": "sdxl", "audio": "audioldm2", "video": "cogvideox-2b", "3d": "shap-e"}
"""The decoder for an output where none listens in the model's space and none is named."""
LABELS = {
    "audio": ("audioset", "vggsound"),
    "depth": ("nyuv2", "sun_rgbd"),
    "eeg": ("imagenet_eeg",),
    "image": ("imagenet",),
    "point_cloud": ("objaverse_lvis",),
    "tactile": ("touch_and_go_material",),
    "video": ("vggsound",),
}
"""Class names of datasets that stand in for a describer: the nearest one says what a sensor measured."""


@app.command()
@with_streams()
def imagine(
    streams: Streams,
    out: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="A file to make, by its suffix: .png .wav .mp4 .glb .txt; repeated.")
    ] = None,
    model: ModelOption = MODEL,
    lens: LensOption = None,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", "-w", metavar="MODALITY=NUMBER", help="How much an input counts beside the others (default 1)."),
    ] = None,
    decoder: Annotated[
        list[str] | None, typer.Option("--decoder", help="What generates, by its card (--list-decoders); may be repeated.")
    ] = None,
    describer: Annotated[
        str | None, typer.Option(metavar="HOST", help="A chat host (vitlens chat) that describes inputs for decoders of text.")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Texts, one a line, of which the nearest describes an input (default: class names).")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Said to the decoder besides the inputs.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the decoder (default: its card's).")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance of the decoder (default: its card's).")] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="Of so many pictures keep the one that the model finds nearest to the inputs.")
    ] = 1,
    offload: Annotated[
        str | None, typer.Option(help="Keep weights in main memory: model, or sequential (slower, smaller).")
    ] = None,
    allow_other_space: Annotated[
        bool, typer.Option("--allow-other-space", help="Give a decoder embeddings of another space of its width.")
    ] = False,
    device: DeviceOption = None,
    read_option: ReadOption = None,
    list_decoders: Annotated[bool, typer.Option("--list-decoders", help="Show the decoders' cards, and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be loaded and made, and stop.")] = False,
) -> None:
    """Make pictures, sounds, videos, 3D shapes or texts from files of any sensors, alone or mixed.

    A decoder that listens in the model's own space gets the embedding; any other gets a text: what a describer says of the
    inputs, or the nearest of a bank of texts. `--model vitlens-toybox` works without a download, on the files of `vitlens demo`.

    vitlens imagine --audio waves.wav --out beach.png

    vitlens imagine -m vitlens-toybox --point-cloud a.ply --audio b.wav -w point_cloud=2 -o mixture.png
    """
    from vitlens.cli import console

    if list_decoders:
        _show_cards()
        return
    if not out:
        raise OptionError("--out is needed: a file to make, such as beach.png; its suffix says what")
    kinds = [kind_of(path) for path in out]
    for path, kind in zip(out, kinds, strict=True):
        check_path(path, kind)
    if candidates > 1 and "image" not in kinds:
        raise OptionError("--candidates: only pictures are judged; give an --out such as beach.png, or leave it out")
    if not streams:
        raise OptionError("nothing to imagine from: give a file, such as --audio waves.wav, or --text")
    check_files(streams)
    options = read_options(streams, read_option)
    lenses = named_values("--lens", lens)
    weights = _weights(weight, streams)
    if dry_run:
        console.say_pairs(_plan(model, streams, out, kinds, decoder, describer, bank))
        return
    from vitlens.adapters.generate.any_to_any import AnyToAny, Request

    with console.waiting(f"loading {model}"):
        needed = {"text": bank is not None or describer is None, "image": candidates > 1 or model in SHIPPED}
        loaded = _model(model, streams, lenses, device, [tower for tower, used in needed.items() if used])
    chosen = _decoders(loaded, model, kinds, decoder)
    load = {"offload": offload, "device": device}
    wordy = any(not isinstance(name, str) or name in BY_TEXT.values() for name in chosen) or "text" in kinds
    made_by = AnyToAny(
        loaded,
        decoders=chosen,
        describer=None if describer is None else open_host(describer, lenses=lenses).describe,
        bank=_bank(loaded, streams, bank) if describer is None and wordy else None,
        load_options={name: value for name, value in load.items() if value is not None},
    )
    wanted = [_request(Request, kind, path, prompt, steps, guidance, candidates) for kind, path in zip(kinds, out, strict=True)]
    made = made_by.generate(
        streams, wanted, weights=weights, seed=seed, allow_other_space=allow_other_space, read_options=options
    )
    for path, one in zip(out, made, strict=True):
        how = f"by {one.bridge}" + (f", {one.decoder}" if one.decoder else "") + (f": {one.prompt}" if one.prompt else "")
        console.say(f"{path}: {how}" if one.kind != "text" else f"{path}: {one.value}")


def _request(
    kind_of_request: Any, kind: str, path: Path, prompt: str, steps: int | None, guidance: float | None, candidates: int
) -> Any:
    if kind == "text":
        return kind_of_request(kind, path=path)
    several = {"candidates": candidates} if kind == "image" else {}
    return kind_of_request(kind, path=path, prompt=prompt, steps=steps, guidance=guidance, **several)


def _weights(given: Sequence[str] | None, streams: Streams) -> dict[str, float] | None:
    """Raises OptionError for a weight that is no number above 0, or of something that is no input."""
    named = named_values("--weight", given, "MODALITY=NUMBER, such as audio=2")
    checks.known("--weight: no input", named, streams)
    return {name: checks.number(f"--weight {name}", _number(text), above=0) for name, text in named.items()} or None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _model(name: str, streams: Streams, lenses: Mapping[str, str], device: str | None, more: Sequence[str]) -> ViTLens:
    """The model with the towers of the streams and `more`, and with the lenses that come from elsewhere."""
    from vitlens.adapters.lenses import with_sensors
    from vitlens.model import load

    towers = dict.fromkeys([*(stream for stream in streams if stream == "text" or stream not in lenses), *more])
    loaded = load(name, modalities=list(towers) or None, device=device)
    return with_sensors(loaded, lenses) if lenses else loaded


def _decoders(model: ViTLens, name: str, kinds: Sequence[str], named: Sequence[str] | None) -> list[str | Decoder]:
    """The decoders named, or for each kind of output those that listen in the model's space, then the one that goes by text."""
    if named:
        return list(named)
    if name in SHIPPED:
        return [resolve_name(SHIPPED[name])(model)]
    found: list[str] = []
    for kind in dict.fromkeys(kind for kind in kinds if kind != "text"):
        own = [card.name for card in decoder_cards(kind) if card.space == model.space]
        found += own or [BY_TEXT[kind]]
    return list(found)


def _bank(model: ViTLens, streams: Streams, file: Path | None) -> Any:
    """A bank of the texts in a file, or of the class names that the field knows for these modalities."""
    from vitlens.adapters.generate.retrieval import TextBank

    if not model.supports("text"):
        return None
    if file is not None:
        return TextBank(model, _lines(file), templates=["{}"])
    from vitlens.benchmarks.datasets.dataset import read_lines

    if model.spec.name in SHIPPED:
        from vitlens.benchmarks.toybox.sensors.drawn import class_names

        names = [name for stream in streams for name in class_names(stream)]
    else:
        names = [name for stream in streams for listed in LABELS.get(stream, ()) for name in read_lines("labels", listed)]
    names = distinct(model.modality("text"), names)
    return TextBank(model, names) if names else None


def _lines(file: Path) -> list[str]:
    """The texts in a file, each once.

    Raises:
        InputError: a file without any, or that is no text.
    """
    try:
        found = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file), f"cannot be read as text ({error})", "texts in UTF-8, one a line") from error
    if not found:
        raise InputError(str(file), "no text in it", "texts in UTF-8, one a line")
    return list(dict.fromkeys(found))


def _plan(
    model: str,
    streams: Streams,
    out: Sequence[Path],
    kinds: Sequence[str],
    decoders: Sequence[str] | None,
    describer: str | None,
    bank: Path | None,
) -> list[tuple[str, str]]:
    from vitlens.cards import all_cards

    space = all_cards()[model].spec.space if model in all_cards() else None
    rows = [("model", f"{model}, space {space.name}" if space else model)]
    rows += [(name, ", ".join(files)) for name, files in streams.items()]
    for path, kind in zip(out, kinds, strict=True):
        rows.append((str(path), _how(kind, model, space, decoders, describer, bank)))
    return [*rows, ("", "nothing was loaded or made (--dry-run)")]


def _how(kind: str, model: str, space: Any, decoders: Sequence[str] | None, describer: str | None, bank: Path | None) -> str:
    words = f"what {describer} says" if describer else f"the nearest text of {bank or 'the known class names'}"
    if kind == "text":
        return words
    if model in SHIPPED and not decoders:
        return "by embedding, the painter that ships with it"
    cards = [card for card in decoder_cards(kind) if (card.name in decoders if decoders else card.space == space)]
    cards = cards or [card for card in decoder_cards(kind) if card.name == BY_TEXT[kind]]
    card = cards[0]
    how = "by embedding" if card.space == space else f"by text ({words})" if card.text == "alone" else "by a picture, or a bridge"
    return f"{how}, {card.name}: {card.repo}, {card.memory}, licence {card.licence}"


def _show_cards() -> None:
    from vitlens.cli.console import say_table

    rows = [(card.name, card.output, _listens(card), card.memory, card.licence) for card in decoder_cards()]
    say_table(Table(("decoder", "makes", "listens to", "memory", "licence"), rows))


def _listens(card: DecoderCard) -> str:
    if card.space is not None:
        return f"embeddings of {card.space.name} ({card.space.dim})"
    return "text" if card.text == "alone" else "a picture"
