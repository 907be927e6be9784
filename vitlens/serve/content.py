"""The grammar of what clients send: texts, content parts, addresses and uploads become `Given`s.

One item is one embedding. It is

    "a text"                                                   with `modality`: an address or base64 of that sensor
    {"type": "audio_url", "audio_url": {"url": ..., ...}}      a part, as OpenAI and vLLM write them
    {"audio": ...}                                             the same, as Jina writes it
    [part, part] or {"content": [part, part]}                  a mixture: embeddings added by `weight`, length 1 again

The types of parts come from the registry: a sensor `depth` has `depth_url`, `depth_base64` and `input_depth`. What else
stands beside the address are read options (rate, unit, scale ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vitlens.errors import VitlensError
from vitlens.modality import list_modalities, modality_class
from vitlens.read_options import check_read_option, typed_read_option
from vitlens.serve.given import DATA, File, Given, decoded, located
from vitlens.serve.refusals import Refusal, invalid, refusal_of, too_large
from vitlens.serve.settings import Limits

Item = list[Given]
"""What becomes one embedding: one thing, or the parts of a mixture."""
_IGNORED = {"detail", "uuid"}
"""Of OpenAI's and vLLM's parts, without meaning here."""


class Grammar:
    """What a model's clients may send."""

    def __init__(self, modalities: Sequence[str], width: int, limits: Limits) -> None:
        self.modalities = tuple(modalities)
        self.width = width
        self.limits = limits

    def items(self, value: Any, where: str, modality: str = "text") -> list[Item]:
        """A whole `input`: one item, or a list of them.

        Raises:
            Refusal: something that is none, by its place.
        """
        self.check_modality(modality, "modality")
        given = value if isinstance(value, list) else [value]
        if not given:
            raise invalid(f"{where}: an empty list; give at least one item", where)
        if all(isinstance(one, int) and not isinstance(one, bool) for one in given):
            raise _tokens(where)
        if len(given) > self.limits.items:
            raise too_large(where, f"{len(given)} items", "items", self.limits, where)
        places = [f"{where}[{place}]" for place in range(len(given))] if isinstance(value, list) else [where]
        return [self.item(one, place, modality) for one, place in zip(given, places, strict=True)]

    def item(self, value: Any, where: str, modality: str = "text") -> Item:
        """What becomes one embedding."""
        if isinstance(value, str):
            return [self._plain(value, where, modality)]
        if isinstance(value, File):
            return [self._file(value, where, modality, {})]
        if isinstance(value, Given):
            return [value]
        if isinstance(value, list):
            if value and all(isinstance(one, int) and not isinstance(one, bool) for one in value):
                raise _tokens(where)
            return self.mixture(value, where)
        if isinstance(value, Mapping) and "type" not in value and "content" in value:
            return self.mixture(value["content"], f"{where}.content")
        if isinstance(value, Mapping) and "type" not in value:
            return self._named(value, where)
        return [self.part(value, where)]

    def mixture(self, parts: Any, where: str) -> Item:
        """The parts of one item: a text alone, or a list of parts."""
        if isinstance(parts, str):
            return [self._plain(parts, where, "text")]
        if not isinstance(parts, list) or not parts:
            raise invalid(f"{where}: expected a text or a list of parts, found {_kind(parts)}", where)
        if len(parts) > self.limits.items:
            raise too_large(where, f"{len(parts)} parts", "items", self.limits, where)
        return [given for place, part in enumerate(parts) for given in self.item(part, f"{where}[{place}]")]

    def conversations(self, messages: Any, where: str = "messages") -> list[Item]:
        """vLLM's `messages`: one conversation, or a list of them; each becomes one embedding of all its parts."""
        if not isinstance(messages, list) or not messages:
            raise invalid(f"{where}: expected a list of messages, found {_kind(messages)}", where)
        several = all(isinstance(one, list) for one in messages)
        if several and len(messages) > self.limits.items:
            raise too_large(where, f"{len(messages)} conversations", "items", self.limits, where)
        places = [f"{where}[{place}]" for place in range(len(messages))] if several else [where]
        return [self._conversation(one, place) for one, place in zip(messages if several else [messages], places, strict=True)]

    def _conversation(self, messages: Sequence[Any], where: str) -> Item:
        found: Item = []
        for place, message in enumerate(messages):
            here = f"{where}[{place}]"
            if not isinstance(message, Mapping) or "content" not in message:
                raise invalid(f"{here}: expected a message with its content, found {_kind(message)}", here)
            if message.get("role", "user") != "user":
                raise invalid(
                    f"{here}: a message of {message['role']!r}; this model embeds what users say, not conversations", here
                )
            found += self.mixture(message["content"], f"{here}.content")
        if not found:
            raise invalid(f"{where}: no message", where)
        return found

    def part(self, part: Any, where: str) -> Given:
        """A content part with its type."""
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise invalid(f"{where}: expected a text or a part with its type, found {_kind(part)}", where)
        kind, weight = part["type"], self._weight(part.get("weight", 1.0), where)
        rest = {key: value for key, value in part.items() if key not in {"type", "weight", *_IGNORED}}
        if kind in ("text", "input_text"):
            _only(rest, ("text",), where)
            return replace(self._plain(rest.get("text"), where, "text"), weight=weight)
        if kind == "embedding":
            _only(rest, ("embedding", "modality"), where)
            modality = rest.get("modality", "embedding")
            if modality != "embedding":
                self.check_modality(modality, where)
            return Given(modality, where, self._embedding(rest.get("embedding"), where), weight=weight)
        for modality in self._sensors():
            if kind == f"{modality}_url" or kind == f"{modality}_base64":
                _only(rest, (kind,), where)
                return replace(self._addressed(rest.get(kind), where, modality, kind), weight=weight)
            if kind == f"input_{modality}":
                _only(rest, (kind,), where)
                return replace(self._sent(rest.get(kind), where, modality), weight=weight)
        raise self._unknown_part(kind, where)

    def _named(self, value: Mapping[str, Any], where: str) -> Item:
        """Jina's form: {"audio": address}, {"text": ...}."""
        weight = self._weight(value.get("weight", 1.0), where)
        names = [name for name in value if name != "weight"]
        if not names:
            raise invalid(f"{where}: an empty object; expected a part with its type, or {{modality: address}}", where)
        found = []
        for name in names:
            self.check_modality(name, where)
            one = value[name]
            given = self._plain(one, where, "text") if name == "text" else self._addressed(one, where, name, name)
            found.append(replace(given, weight=weight))
        return found

    def _plain(self, text: Any, where: str, modality: str) -> Given:
        """A string: a text, or what the request's modality makes of it."""
        if not isinstance(text, str):
            raise invalid(f"{where}: expected a text, found {_kind(text)}", where)
        if modality != "text":
            return self._file(located(text, where, self.limits, bare=True), where, modality, {})
        self.check_modality("text", where)
        if DATA.match(text[:200]) and ";base64," in text[:200]:
            advice = 'say what it is: "modality": "image", or a part {"type": "image_url", ...}'
            raise invalid(f"{where}: a data: URI stands where a text should; {advice}", where)
        return Given("text", where, text)

    def _addressed(self, value: Any, where: str, modality: str, key: str) -> Given:
        """What stands under `audio_url`: an address, or {"url": address, read option: value}."""
        if isinstance(value, File):
            return self._file(value, where, modality, {})
        options = dict(value) if isinstance(value, Mapping) else {"url": value}
        url = options.pop("url", options.pop("data", None))
        said = self._format(options, where)
        content = located(url, f"{where}.{key}", self.limits, format=said, bare=not key.endswith("_url"))
        return self._file(content, where, modality, options)

    def _sent(self, value: Any, where: str, modality: str) -> Given:
        """What stands under `input_audio`: {"data": base64, "format": "wav", read option: value}."""
        if not isinstance(value, Mapping) or not isinstance(value.get("data"), str):
            raise invalid(f'{where}: expected {{"data": base64, "format": "wav"}}, found {_kind(value)}', where)
        options = {key: option for key, option in value.items() if key != "data"}
        said = self._format(options, where)
        return self._file(File(decoded(value["data"], where, self.limits), format=said), where, modality, options)

    def _file(self, content: Any, where: str, modality: str, options: Mapping[str, Any]) -> Given:
        return Given(modality, where, content, self.read_options(modality, options, where))

    def read_options(self, modality: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Read options, checked and typed."""
        known = {key: value for key, value in options.items() if key not in _IGNORED}
        try:
            for key in known:
                check_read_option(modality, key, where)
            return {key: typed_read_option(modality, key, value) for key, value in known.items()}
        except VitlensError as error:
            raise refusal_of(error, where) from error

    def check_modality(self, name: str, where: str) -> None:
        """Refuse what the model does not embed."""
        if name not in self.modalities:
            installed = " (a sensor of this installation, of which the model has no lens)" if name in list_modalities() else ""
            message = f"{where}: no modality {name!r}{installed}; this model has {', '.join(self.modalities)}"
            raise invalid(message, where, code="unknown_modality")

    def _sensors(self) -> list[str]:
        return [name for name in self.modalities if modality_class(name).tower != "text"]

    def _format(self, options: dict[str, Any], where: str) -> str:
        said = options.pop("format", "")
        if not isinstance(said, str):
            raise invalid(f"{where}: format must be a text such as 'wav', found {_kind(said)}", where)
        return said

    def _weight(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise invalid(f"{where}: weight must be a number, found {value!r}", where)
        return float(value)

    def _embedding(self, value: Any, where: str) -> np.ndarray:
        """An embedding [E] that a client has: numbers, or base64 of float32 as the service gives it."""
        if isinstance(value, str):
            content = decoded(value, where, self.limits)
            row = np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(np.float32)
        else:
            numbers = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
            if not numbers:
                raise invalid(f"{where}: expected an embedding as a list of numbers or base64, found {_kind(value)}", where)
            row = np.asarray(value, np.float32)
        if row.shape != (self.width,) or not np.isfinite(row).all() or not float(np.linalg.norm(row)) > 0:
            found = f"{row.size} numbers" if row.shape != (self.width,) else "zeros only, NaN or infinity"
            raise invalid(f"{where}: an embedding of this model has {self.width} finite numbers, found {found}", where)
        return row / np.linalg.norm(row)

    def _unknown_part(self, kind: str, where: str) -> Refusal:
        for name in list_modalities():
            if kind in (f"{name}_url", f"{name}_base64", f"input_{name}") and name not in self.modalities:
                try:
                    self.check_modality(name, where)
                except Refusal as refusal:
                    return refusal
        known = [
            "text",
            *(f"{name}_url" for name in self._sensors()),
            *(f"input_{name}" for name in self._sensors()),
            "embedding",
        ]
        return invalid(f"{where}: no part of type {kind!r}; known: {', '.join(known)}", where)


def _only(rest: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    strange = [key for key in rest if key not in allowed]
    if strange:
        advice = "read options stand beside the url, in the same object"
        raise invalid(
            f"{where}: unknown key {', '.join(map(repr, strange))}; known: {', '.join(allowed)}, weight; {advice}", where
        )


def _tokens(where: str) -> Refusal:
    return invalid(f"{where}: lists of token ids are not taken: they mean something to one tokenizer only; send the text", where)


def _kind(value: Any) -> str:
    return {"NoneType": "nothing", "dict": "an object", "list": "a list"}.get(type(value).__name__, f"{value!r:.60}")
