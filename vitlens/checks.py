"""Checks of options, each in one line, with one wording: what it is, what it must be, what was found.

    whole("audio: mel_bins", mel_bins, least=1)
    one_of("fuse", fuse, ("qformer", "vit"))

`what` names the option as its user writes it. All raise OptionError.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

from vitlens.errors import OptionError

T = TypeVar("T")


def whole(what: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """`value`, once it is a whole number (no truth value), NumPy's included, within bounds."""
    good = isinstance(value, Integral) and not isinstance(value, bool) and _within(int(value), least, most)
    if not good:
        raise OptionError(f"{what} must be a whole number{_bounds(least, most)}, found {value!r}")
    return int(value)


def number(what: str, value: Any, *, least: float | None = None, most: float | None = None, above: float | None = None) -> float:
    """`value`, once it is a finite number, NumPy's included, within bounds: `least` and `most` included, `above` not."""
    good = _real(value)
    if not good or not _within(value, least, most) or (above is not None and value <= above):
        upper = "" if most is None else f" and at most {most:g}"
        bounds = _bounds(least, most) if above is None else f" above {above:g}{upper}"
        raise OptionError(f"{what} must be a number{bounds}, found {value!r}")
    return float(value)


def numbers(what: str, value: Any, count: int) -> tuple[float, ...]:
    """`value` as a tuple, once it is a list of `count` finite numbers."""
    good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == count
    if not good or not all(map(_real, value)):
        raise OptionError(f"{what} must be {count} numbers, found {value!r}")
    return tuple(float(v) for v in value)


def text(what: str, value: Any) -> str:
    """`value`, once it is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise OptionError(f"{what} must be a text, found {value!r:.100}")
    return value


def mapping(what: str, value: Any) -> Mapping[str, Any]:
    """`value`, once it is a mapping of names."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise OptionError(f"{what} must be a mapping of names to values, found {value!r:.100}")
    return value


def listed(what: str, value: Any) -> list[Any] | tuple[Any, ...]:
    """`value`, once it is a list."""
    if not isinstance(value, list | tuple):
        raise OptionError(f"{what} must be a list, found {value!r:.100}")
    return value


def flag(what: str, value: Any) -> bool:
    """`value`, once it is True or False."""
    if not isinstance(value, bool):
        raise OptionError(f"{what} must be true or false, found {value!r}")
    return value


def one_of(what: str, value: T, allowed: Iterable[T]) -> T:
    """`value`, once it is one of `allowed`."""
    known = list(allowed)
    if not any(value == one and type(value) is type(one) for one in known):
        raise OptionError(f"{what} must be {either(map(str, known))}, found {value!r}")
    return value


def known(what: str, names: Iterable[Any], allowed: Iterable[str]) -> None:
    """Refuse names that are not in `allowed`, which is listed."""
    listed = tuple(allowed)
    strange = [name for name in names if name not in listed]
    if strange:
        raise OptionError(f"{what} {', '.join(map(repr, strange))}; known: {', '.join(listed) or 'none'}")


def either(names: Iterable[str]) -> str:
    """`a, b or c`."""
    *first, last = list(names)
    return f"{', '.join(first)} or {last}" if first else last


def _real(value: Any) -> bool:
    """Whether `value` is a number, no truth value, that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {_said(least)} to {_said(most)}"
    if least is not None:
        return f" of {_said(least)} or more"
    return f" of {_said(most)} or less" if most is not None else ""


def _said(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
