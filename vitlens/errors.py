"""The errors a user may see. Each names the thing, what was found, what is accepted and what to do."""

from __future__ import annotations


class VitlensError(Exception):
    """Base of every error raised on purpose by vitlens."""


class InputError(VitlensError, ValueError):
    """A sensor input that cannot be used.

    `source` names the input (a path, `<array float32 [3, 4]>` ...), `found` says what is wrong with it and `accepted` what is
    taken instead. Picklable, so that it crosses from a loader worker to the main process unchanged.
    """

    def __init__(self, source: str, found: str, accepted: str) -> None:
        super().__init__(source, found, accepted)
        self.source = source
        self.found = found
        self.accepted = accepted

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"

    @property
    def reason(self) -> str:
        """What is wrong, and what is accepted, without the name of the input."""
        return f"{self.found}. Accepted: {self.accepted}"


class UnclaimedError(InputError):
    """A file that no modality says it reads."""


class OptionError(VitlensError, ValueError):
    """An argument or option with a value that is not allowed."""


class ModalityError(VitlensError, LookupError):
    """A modality that is unknown, registered twice, or not part of the model at hand."""


class ModelError(VitlensError, LookupError):
    """A model name that is not in the zoo, or whose weights are not on this machine and cannot be fetched."""


class CheckpointError(VitlensError, ValueError):
    """A weights file whose keys or shapes do not fit the model, key by key."""


class SpaceError(VitlensError, ValueError):
    """Two embeddings from different spaces were about to be compared or mixed."""


class HostError(VitlensError, ValueError):
    """A lens and a host model that do not fit: another ViT, width or number of tokens, a tokenizer without what is needed."""


class MissingDependencyError(VitlensError, ImportError):
    """An optional package is needed; the message holds the pip command that installs it."""
