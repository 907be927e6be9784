"""Checks of tokenizers and generation options, for hosts that generate from embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vitlens.checks import whole
from vitlens.errors import HostError, OptionError


def check_vocabulary(tokenizer: Any, embedding: Any, host: str) -> None:
    """Raises HostError when the tokenizer knows more tokens than the host has embeddings for."""
    rows = len(embedding.weight)
    beyond = sorted((index, token) for token, index in tokenizer.get_vocab().items() if index >= rows)
    if beyond:
        some = ", ".join(repr(token) for _, token in beyond[:5])
        raise HostError(
            f"the tokenizer has {len(beyond)} tokens beyond the {rows} embeddings of {host} ({some}): use the tokenizer that "
            "came with this host, or enlarge the table first (model.resize_token_embeddings)"
        )


def check_generation_options(given: Mapping[str, Any]) -> None:
    """Raises OptionError for what transformers' `generate` does not know, or would misunderstand with embeddings."""
    from transformers import GenerationConfig

    for name in ("max_length", "min_length"):
        if name in given:
            raise OptionError(f"{name} would count the prompt's embeddings: give {name.replace('length', 'new_tokens')}")
    known = {*GenerationConfig().to_dict(), "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"}
    known -= {"transformers_version", "return_dict_in_generate", "_from_model_config"}
    unknown = [name for name in given if name not in known]
    if unknown:
        from difflib import get_close_matches

        close = get_close_matches(unknown[0], known, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise OptionError(f"unknown generation option {', '.join(map(repr, unknown))}{hint}")
    whole("max_new_tokens", given.get("max_new_tokens", 1), least=1)


def own_repetition_penalty(options: dict[str, Any]) -> dict[str, Any]:
    """The repetition penalty as a processor of ours.

    transformers' own exempts, from embeddings, as many of the first new tokens as a row has padding: batched is not single.
    """
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    penalty = options.get("repetition_penalty")
    if penalty is None or penalty == 1:
        return options
    processors = [RepetitionPenaltyLogitsProcessor(float(penalty)), *options.get("logits_processor", [])]
    return {**options, "repetition_penalty": 1.0, "logits_processor": LogitsProcessorList(processors)}


def check_streaming(given: Mapping[str, Any]) -> None:
    """Raises OptionError for options that several candidates at once would need."""
    for name in ("num_beams", "num_return_sequences"):
        if given.get(name, 1) != 1:
            raise OptionError(f"{name}={given[name]}: a stream has one candidate; leave it out, or use generate()")


def marks_written(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a tokenizer writes a token before a text, and one behind it."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    return whole[: len(bare)] != bare, whole[-len(bare) :] != bare


def pad_id(tokenizer: Any) -> int:
    """What fills short rows, where the attention mask hides it."""
    for name in ("pad_token_id", "unk_token_id", "eos_token_id"):
        if getattr(tokenizer, name, None) is not None:
            return int(getattr(tokenizer, name))
    raise HostError("the tokenizer has neither a pad nor an unk nor an eos token: it cannot end or fill an answer")


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: of an offloaded one, where its hook brings it."""
    parameter = next(module.parameters())
    hook = getattr(module, "_hf_hook", None)
    return torch.device(hook.execution_device) if parameter.is_meta and hook is not None else parameter.device
