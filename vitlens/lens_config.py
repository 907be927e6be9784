"""What a lens is, as a recipe or config.json states it. No torch here: a modality names its lens before one is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from vitlens import checks
from vitlens.errors import OptionError

MOST = {"depth": 1000, "self_per_cross": 1000, "heads": 4096, "cross_heads": 4096, "latents": 1 << 16, "head_width": 1 << 16}
"""Far above any lens there is: what a file asks for beyond is a mistake, or meant to harm."""


@dataclass(frozen=True)
class IdentityConfig:
    """Tokens pass unchanged (projected when the widths differ is refused): the ModEmbed alone is trained."""

    kind = "identity"


@dataclass(frozen=True)
class SelfAttentionConfig:
    """`depth` transformer blocks over the tokens: new ones, or copies of the frozen ViT's first blocks."""

    depth: int = 4
    heads: int | None = None
    """Attention heads of new blocks; None takes one per 64 channels of the ViT's width."""
    pretrained: bool = False
    """Start from copies of the ViT's first `depth` blocks instead of new ones."""

    def __post_init__(self) -> None:
        _check(self, ("depth",), ("heads",), ("pretrained",))

    kind = "self_attention"


@dataclass(frozen=True)
class PerceiverConfig:
    """Iterative cross attention of `latents` learned queries to the tokens.

    None stands for the ViT's own: as many latents as it has patches, heads as wide as its heads.
    """

    depth: int = 2
    self_per_cross: int = 1
    latents: int | None = None
    cross_heads: int = 1
    head_width: int | None = None
    tied: bool = False
    """Layers 1, 2, ... share one set of weights (layer 0 keeps its own)."""

    def __post_init__(self) -> None:
        _check(self, ("depth", "self_per_cross", "cross_heads"), ("latents", "head_width"), ("tied",))

    kind = "perceiver"


def _check(config: Any, numbers: tuple[str, ...], optional: tuple[str, ...], flags: tuple[str, ...]) -> None:
    for name in (*numbers, *optional):
        value = getattr(config, name)
        if name not in optional or value is not None:
            checks.whole(f"lens {config.kind}: {name}", value, least=0 if name == "self_per_cross" else 1, most=MOST[name])
    for name in flags:
        checks.flag(f"lens {config.kind}: {name}", getattr(config, name))


LensConfig = IdentityConfig | SelfAttentionConfig | PerceiverConfig
_KINDS: dict[str, type] = {c.kind: c for c in (IdentityConfig, SelfAttentionConfig, PerceiverConfig)}


def lens_config_to_dict(config: LensConfig) -> dict[str, Any]:
    """`config` as JSON types, with its kind."""
    return {"kind": config.kind, **asdict(config)}


def lens_config_from_dict(values: dict[str, Any]) -> LensConfig:
    """The inverse of `lens_config_to_dict`.

    Raises:
        OptionError: unknown kind or field.
    """
    options = dict(checks.mapping("lens", values))
    kind = options.pop("kind", None)
    checks.known("unknown lens kind", [kind], _KINDS)
    try:
        return cast(LensConfig, _KINDS[kind](**options))
    except TypeError as error:
        raise OptionError(f"lens {kind}: {error}") from error
