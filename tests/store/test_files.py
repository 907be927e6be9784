"""Files of embeddings: every format gives back what was put in, names of any bytes included, or says that it is none of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vitlens.errors import InputError, OptionError
from vitlens.space import EmbeddingSpace
from vitlens.store.files import Column, Content, check_output, holds_embeddings, load_embeddings, write_embeddings
from vitlens.vectors import WHOLE, Packing, unit

SPACE = EmbeddingSpace("a space", 4)
FORMATS = ("npz", "parquet", "safetensors")
PLAIN = ["a.png", "büro 猫.png", "new\nline.png", 'quo"te\\.png']
ODD = ["caf\udce9.png", "\udcff", "a.png", "büro 猫\udc80.png"]


def content(names: list[str]) -> Content:
    vectors = np.arange(4 * len(names), dtype=np.float32).reshape(-1, 4)

    def pieces() -> Iterator[np.ndarray]:
        yield vectors[:1]
        yield vectors[1:]

    texts = Column(["a dog"], [1], lambda: iter([np.ones((1, 4))]))
    return Content(SPACE, "a model", {"image": Column(names, [0, 2, 3, 5], pieces), "text": texts})


@pytest.mark.parametrize("names", [PLAIN, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_back_what_was_put_in(kind: str, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / f"caf\udce9.{kind}"
    write_embeddings(path, content(names))
    first = path.read_bytes()
    write_embeddings(path, content(names))
    assert path.read_bytes() == first, "the same embeddings are the same file"
    assert os.listdir(tmp_path) == [path.name] and holds_embeddings(path)
    stored = load_embeddings(path)
    assert (stored.space, stored.model) == (SPACE, "a model")
    assert stored.names == {"image": names, "text": ["a dog"]}
    assert [os.fsencode(name) for name in stored.names["image"]] == [os.fsencode(name) for name in names]
    assert stored.rows == stored.kept | {"image": [0, 2, 3, 5], "text": [1]}
    assert stored["image"].numpy().tolist() == np.arange(16).reshape(4, 4).tolist()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("store", "least"), [("float16", 0.999999), ("int8", 0.9999), ("binary", 0.7)])
def test_vectors_kept_as_less_are_read_again(store: str, least: float, kind: str, tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((300, 128)))
    column = Column([f"{i}.png" for i in range(300)], list(range(300)), lambda: iter([vectors[:100], vectors[100:]]))
    space, path = EmbeddingSpace("a space", 128), tmp_path / f"a.{kind}"
    sizes = []
    for packing in (WHOLE, Packing(store), Packing(store, 64)):
        write_embeddings(path, Content(space, "a model", {"image": column}, packing))
        sizes.append(path.stat().st_size)
        stored = load_embeddings(path)
        width = packing.width or 128
        assert (stored.space, stored.kind) == (EmbeddingSpace("a space", width), packing.kind)
        cosines = (stored["image"].numpy() * unit(vectors[:, :width])).sum(axis=1) / np.linalg.norm(stored["image"], axis=1)
        assert cosines.min() > (least if packing.kind == store else 0.999999)
    bits = {"float16": 16, "int8": 8, "binary": 1}[store]
    assert sizes[0] - sizes[1] > 300 * 128 * (32 - bits) // 8 * 0.95
    assert sizes[1] - sizes[2] > 300 * 64 * bits // 8 * 0.9


def test_what_cannot_be_kept_as_less_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--store must be float32, float16, int8 or binary, found 'fp4'"):
        Packing("fp4")
    with pytest.raises(OptionError, match="--width must be a whole number from 8 to 128, found 256"):
        Packing(width=256).space(EmbeddingSpace("a space", 128))
    with pytest.raises(OptionError, match="12 values do not fill bytes"):
        Packing("binary", 12).space(EmbeddingSpace("a space", 128))
    with pytest.raises(OptionError, match="the first 8 values of an embedding are zero"):
        Packing(width=8).cut(np.eye(9, dtype=np.float32)[8:])


def test_a_parquet_shows_odd_names_readably_and_exactly(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_embeddings(tmp_path / "odd.parquet", content(ODD))
    write_embeddings(tmp_path / "plain.parquet", content(PLAIN))
    odd = pq.read_table(tmp_path / "odd.parquet").to_pydict()
    assert odd["item"] == ["caf\\xe9.png", "a dog", "\\xff", "a.png", "büro 猫\\x80.png"]
    assert odd["item_bytes"] == [b"caf\xe9.png", None, b"\xff", None, os.fsencode(ODD[3])]
    assert "item_bytes" not in pq.read_schema(tmp_path / "plain.parquet").names


def test_other_tools_read_the_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_embeddings(tmp_path / "a.safetensors", content(ODD))
    assert {name: array.shape for name, array in load_file(tmp_path / "a.safetensors").items()} == {
        "image": (4, 4),
        "image.rows": (4,),
        "text": (1, 4),
        "text.rows": (1,),
    }


def test_names_that_do_not_fit_a_safetensors_header_are_refused_before_the_work(tmp_path: Path) -> None:
    names = ["x" * 1_000_000] * 51
    check_output(tmp_path / "a.npz", names, overwrite=False)
    with pytest.raises(OptionError, match=r"51 item names.*parquet or \.npz"):
        check_output(tmp_path / "a.safetensors", names, overwrite=False)


def test_files_that_are_not_ours_are_no_embeddings(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", depth=np.ones(3))
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "c.safetensors").write_bytes(b"\0" * 20)
    for name in ("a.npz", "b.parquet", "c.safetensors", "none.npz"):
        assert not holds_embeddings(tmp_path / name)
        with pytest.raises(InputError):
            load_embeddings(tmp_path / name)
