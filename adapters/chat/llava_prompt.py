"""LLaVA's prompts: where the streams stand in them, and the conversation around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from vitlens.checks import one_of
from vitlens.errors import HostError, OptionError

ChatFormat = Literal["auto", "llava-1.5", "none"]
Exchange = tuple[str, str]
"""A question and its answer."""


def check_chat_format(chat_format: str) -> None:
    """Raises OptionError for an unknown format."""
    one_of("chat_format", chat_format, get_args(ChatFormat))


def place_streams(
    questions: Sequence[str], given: Iterable[str], known: Iterable[str], *, image_token: str
) -> tuple[list[str], list[str]]:
    """Questions with every `<stream>` replaced by the host's image token, and the streams in the order of their places.

    Streams that no question names come first, in their own order.

    Raises:
        OptionError: a question names a stream that is not given, or one twice.
    """
    given = list(given)
    pattern = re.compile("<(" + "|".join(map(re.escape, known)) + ")>")
    named = [name for question in questions for name in pattern.findall(question)]
    absent = [name for name in named if name not in given]
    if absent:
        raise OptionError(f"the prompt names <{absent[0]}>, but the inputs hold {', '.join(given) or 'nothing'}")
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"the prompt names <{twice}> {named.count(twice)} times: a stream has one place")
    first = [name for name in given if name not in named]
    written = [pattern.sub(lambda _: image_token, question) for question in questions]
    written[0] = f"{image_token}\n" * len(first) + written[0]
    return written, [*first, *named]


def conversation(questions: Sequence[str], answers: Sequence[str], tokenizer: Any, chat_format: ChatFormat) -> str:
    """The text of a conversation whose last question waits for its answer.

    Raises:
        HostError: a chat template that leaves a question out.
    """
    if chat_format == "none":
        turns = [f"{question}{answer}" for question, answer in zip(questions, answers, strict=False)]
        return "".join(turns) + questions[-1]
    if chat_format == "auto" and getattr(tokenizer, "chat_template", None):
        return _by_template(questions, answers, tokenizer)
    end = tokenizer.eos_token or ""
    turns = [f"USER: {question} ASSISTANT: {answer}{end}" for question, answer in zip(questions, answers, strict=False)]
    return "".join([*turns, f"USER: {questions[-1]} ASSISTANT:"])


def _by_template(questions: Sequence[str], answers: Sequence[str], tokenizer: Any) -> str:
    """Through the tokenizer's template; some want a message's content as text, others as a list of parts."""
    roles = [("user", "assistant")[i % 2] for i in range(len(questions) + len(answers))]
    texts = [text for pair in zip(questions, [*answers, ""], strict=True) for text in pair][: len(roles)]
    whole = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in whole]
    for messages in (whole, parts):
        text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        if all(question.strip() in text for question in questions):
            return text
    raise HostError("the tokenizer's chat template leaves out what the user says; choose chat_format='llava-1.5'")
