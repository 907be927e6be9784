"""Before the first step: the anchors with their weights, and the encoder that is to be trained beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from vitlens import zoo
from vitlens.embed import ModEmbed, PatchEmbed
from vitlens.encoder import EncoderSpec, LensEncoder, build_encoder, check_embed, token_width
from vitlens.errors import CheckpointError, OptionError
from vitlens.lens_config import lens_config_from_dict
from vitlens.model import ViTLens, load
from vitlens.spec import ModelSpec
from vitlens.towers import build_vit
from vitlens.train.open_clip_tags import IMAGE, PREFIX, open_clip_card
from vitlens.train.recipe import Recipe
from vitlens.vit import FrozenViT, Trainable, ViT, ViTSpec


def load_anchors(recipe: Recipe) -> ViTLens:
    """The anchors with their weights, on the CPU: the towers of the loss, the ViT to be looked through, and the text tower.

    Raises:
        OptionError: the recipe names no model.
        ModelError: the weights are not on this machine.
        ModalityError: an anchor that the model does not have.
    """
    name = anchor_name(recipe)
    if name.startswith(PREFIX):
        return ViTLens.from_state(zoo.read_card(open_clip_card(name), weights=recipe.anchors.weights))
    known = anchor_spec(recipe).modalities
    optional = [IMAGE, "text", *([recipe.model.modality] if recipe.model.start in ("anchors", name) else [])]
    wanted = dict.fromkeys([*recipe.anchors.modalities, *(m for m in optional if m in known)])
    return load(name, modalities=list(wanted), device="cpu", weights=recipe.anchors.weights)


def anchor_spec(recipe: Recipe) -> ModelSpec:
    """What `load_anchors` would build, without weights."""
    name = anchor_name(recipe)
    if name.startswith(PREFIX):
        return open_clip_card(name).spec
    return zoo.find_spec(name)


def anchor_name(recipe: Recipe) -> str:
    """The model of the anchors; a run that goes on from a trained encoder takes that model's own, unless it says otherwise."""
    name = recipe.anchors.model or (recipe.model.start if recipe.model.start != "anchors" else None)
    if not name:
        raise OptionError(
            "recipe: anchors.model names the frozen model whose embeddings are the goal; give a folder, a zoo name, or "
            "open_clip/ARCHITECTURE/TAG"
        )
    return name


def encoder_spec(recipe: Recipe, anchors: ModelSpec) -> EncoderSpec:
    """The spec of the encoder that the recipe trains; going on from a trained one, what the recipe leaves out is that one's.

    Raises:
        OptionError: a lens or ViT whose fields do not fit, or no ViT named and none among the anchors.
    """
    options = recipe.model
    known = {encoder.modality: encoder for encoder in anchors.encoders}
    start = known.get(options.modality) if options.start else None
    return EncoderSpec(
        modality=options.modality,
        vit=_vit_spec(options.vit, start or known.get(IMAGE), anchors.name),
        options={**(start.options if start else {}), **options.options},
        lens=lens_config_from_dict(dict(options.lens)) if options.lens is not None else start.lens if start else None,
        token_width=options.token_width or (start.token_width if start else None),
        trains=options.trains,
    )


def _vit_spec(given: Mapping[str, Any] | None, template: EncoderSpec | None, name: str) -> ViTSpec:
    """The ViT that is named, or else the template's; the template lends its numbers to an architecture of the same name."""
    if given is None:
        if template is None:
            raise OptionError(f"recipe: model.vit must say which ViT is used: {name} has no image encoder to take it from")
        return template.vit
    try:
        vit = ViTSpec(**given)
    except TypeError as error:
        raise OptionError(f"model.vit: {error}") from error
    lends = template is not None and vit.config is None and vit.name == template.vit.name
    return replace(vit, config=template.vit.config) if lends and template else vit


def with_new_encoder(model: ViTLens, recipe: Recipe) -> ViTLens:
    """The anchors with the encoder that is to be trained; frozen tensors of the ViT are shared, not copied.

    Raises:
        OptionError: a ViT that differs from the anchors' and has no other weights.
        CheckpointError: `model.start` that does not fit.
        ModalityError: a modality whose preprocessing and ModEmbed do not fit each other.
    """
    options = recipe.model
    spec = encoder_spec(recipe, model.spec)
    if options.start and options.start in ("anchors", recipe.anchors.model):
        if options.modality not in model.encoders:
            raise OptionError(f"model.start: {model.spec.name} has no encoder of {options.modality} to go on from")
        encoder = copy_encoder(_as_encoder(model.encoders[options.modality]), spec)
    elif options.start:
        start = load(options.start, modalities=[options.modality], device="cpu")
        spec = encoder_spec(recipe, start.spec)
        encoder = copy_encoder(_as_encoder(start.encoders[options.modality]), spec)
    else:
        encoder = new_encoder(model, spec, random=options.vit_weights == "random")
        if options.patches == "image":
            see_as_picture(encoder.embed, _image_embed(model, options.modality))
    if encoder.vit.embed_dim != model.space.dim:
        raise OptionError(
            f"the {options.modality} encoder gives embeddings of {encoder.vit.embed_dim} values, "
            f"the anchors' space {model.space.name} has {model.space.dim}"
        )
    made = assembled(model, recipe.name, spec, encoder)
    if not options.start:  # before anything is computed: a sensor of one's own may not fit itself yet
        modality = made.modality(options.modality)
        check_embed(modality, encoder.embed, token_width(modality, encoder.vit, spec.token_width))
    return made


def assembled(model: ViTLens, name: str, spec: EncoderSpec, encoder: LensEncoder) -> ViTLens:
    """A model of the anchors' towers and `encoder`, which takes the place of one of the same modality."""
    encoders = {key: _as_encoder(value) for key, value in model.encoders.items()}
    if IMAGE in encoders and spec.modality != IMAGE:
        _share_frozen(encoder.vit, encoders[IMAGE].vit)
    specs = {**{e.modality: e for e in model.spec.encoders}, spec.modality: spec}
    whole = replace(model.spec, name=name, encoders=tuple(specs.values()), logit_scale=model.logit_scale)
    return ViTLens(spec=whole, encoders={**encoders, spec.modality: encoder}, text=model.text).eval()


def _as_encoder(module: nn.Module) -> LensEncoder:
    if not isinstance(module, LensEncoder):
        raise OptionError(f"{type(module).__name__} is no LensEncoder: it cannot be trained here")
    return module


def new_encoder(model: ViTLens, spec: EncoderSpec, *, random: bool = False) -> LensEncoder:
    """A new ModEmbed and lens in front of the anchors' image ViT, or with `random` in front of a new one.

    What looks like a picture and goes through the ViT's own patch embedding starts from the image encoder's.
    """
    if random:
        return build_encoder(spec, vit=build_vit(spec.vit))
    if IMAGE not in model.encoders:
        raise OptionError("model.vit_weights: the anchors have no image encoder to take the ViT from; choose 'random'")
    image = _as_encoder(model.encoders[IMAGE])
    known = next(e.vit for e in model.spec.encoders if e.modality == IMAGE)
    if replace(known, skip_blocks=0) != replace(spec.vit, skip_blocks=0) or known.config != spec.vit.config:
        raise OptionError(
            f"model.vit is {spec.vit.name}, the anchors' image ViT is {known.name}: its weights are not known here; "
            "choose vit_weights: random, or give Trainer a model that has this encoder and set model.start=anchors"
        )
    vit = cast(FrozenViT, image.vit).fork(Trainable())
    if isinstance(image.embed, ModEmbed):
        vit._patch = (image.embed,)
    drop = spec.vit.skip_blocks - known.skip_blocks
    if not 0 <= drop < len(vit.blocks):
        raise OptionError(f"model.vit.skip_blocks: cannot skip {spec.vit.skip_blocks} of {len(vit.blocks)} blocks")
    vit.blocks = nn.ModuleList(list(vit.blocks)[drop:])
    return build_encoder(spec, vit=vit)


def see_as_picture(embed: nn.Module, picture: PatchEmbed) -> None:
    """Let a new ModEmbed of c channels see a map as `picture` sees a grey picture: each channel takes 1/c of what its colours sum
    up to, and the positions are left to the ViT. One that makes pictures sees their colours.

    Raises:
        OptionError: no patches, or of another size than the picture's.
    """
    wanted = picture.conv1.weight
    if not isinstance(embed, PatchEmbed) or embed.conv1.weight.shape[2:] != wanted.shape[2:]:
        found = f"patches of {embed.conv1.weight.shape[-1]} pixels" if isinstance(embed, PatchEmbed) else type(embed).__name__
        raise OptionError(
            f"model.patches=image: the ModEmbed must cut a map into patches of {wanted.shape[-1]} pixels, as the ViT does; "
            f"found {found}; leave model.patches at 'new'"
        )
    with torch.no_grad():
        grey = wanted.sum(dim=1, keepdim=True) / embed.conv1.weight.shape[1]
        embed.conv1.weight.copy_(wanted if embed.pictures else grey.expand_as(embed.conv1.weight))
        if embed.conv1.bias is not None:
            embed.conv1.bias.zero_() if picture.conv1.bias is None else embed.conv1.bias.copy_(picture.conv1.bias)
        if hasattr(embed, "pos_emb"):
            embed.pos_emb.zero_()


def _image_embed(model: ViTLens, modality: str) -> PatchEmbed:
    embed = _as_encoder(model.encoders[IMAGE]).embed if IMAGE in model.encoders else None
    if not isinstance(embed, PatchEmbed):
        raise OptionError(f"model.patches=image: the anchors have no patches of pictures for {modality} to start from")
    return embed


def copy_encoder(source: LensEncoder, spec: EncoderSpec) -> LensEncoder:
    """The encoder `spec` describes with the values of `source`; frozen tensors of the ViT are shared.

    Raises:
        CheckpointError: ModEmbed or lens of another shape.
    """
    encoder = build_encoder(spec, vit=source.vit)
    for name in ("embed", "lens"):
        _copy_values(getattr(encoder, name), getattr(source, name).state_dict(), f"model.start: {spec.modality} {name}")
    return encoder


def _copy_values(module: nn.Module, state: Mapping[str, Any], where: str) -> None:
    own = module.state_dict()
    odd = [key for key in {*own, *state} if key not in own or key not in state or own[key].shape != state[key].shape]
    if odd:
        raise CheckpointError(f"{where} does not fit: {', '.join(sorted(odd)[:8])} missing, left over, or of another shape")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(state[key])


def _share_frozen(vit: ViT, other: ViT) -> None:
    """Let `vit` use the tensors of `other` where it has the same frozen ones."""
    theirs = dict(other.named_parameters())
    for name, parameter in list(vit.named_parameters()):
        twin = theirs.get(name)
        if twin is None or twin is parameter or parameter.requires_grad or twin.shape != parameter.shape:
            continue
        if not twin.requires_grad and torch.equal(twin, parameter):
            holder, _, leaf = name.rpartition(".")
            vit.get_submodule(holder)._parameters[leaf] = twin


def train_mode(encoder: LensEncoder) -> None:
    """ModEmbed, lens and LoRA in training mode; the ViT stays as it is in use (no dropout), unless all of it trains."""
    encoder.train()
    encoder.vit.train(all(p.requires_grad for p in encoder.vit.parameters()))
    for name, module in encoder.vit.named_modules():
        if "lora_" in name:
            module.train()
