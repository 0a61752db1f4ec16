"""The S4D models. Importing this package registers them with timm."""
from __future__ import annotations

import re
from pathlib import Path

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from ..config import ConfigError
from . import checkpoints
from .checkpoints import CheckpointError, encoder_from, to_released
from .mae import MEAN, STD, DualMAE
from .moae import MoAE
from .tokens import random_mask, removed_tokens, sincos
from .vit import S4D, Encoder, count_parameters

__all__ = ["S4D", "DualMAE", "Encoder", "MoAE", "CheckpointError", "encoder_from", "load_released",
           "to_released", "random_mask", "removed_tokens", "sincos", "count_parameters", "create",
           "MEAN", "STD", "VARIANTS", "DECODERS"]

# Encoder and decoder of each variant (docs/method.md section 3). The nano variants are ours: they
# train on a laptop, on faces of 64 px.
_PAPER = dict(img_size=160, num_frames=16, patch_size=16)
VARIANTS = {
    "nano_patch16_64": dict(img_size=64, num_frames=8, patch_size=16, embed_dim=128, depth=3,
                            num_heads=4, stem_dim=32),
    "small_patch16_160": dict(_PAPER, embed_dim=384, depth=12, num_heads=6),
    "base_patch16_160": dict(_PAPER, embed_dim=768, depth=12, num_heads=12),
    "large_patch16_160": dict(_PAPER, embed_dim=1024, depth=24, num_heads=16),
}
DECODERS = {
    "nano_patch16_64": dict(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=2),
    "small_patch16_160": dict(decoder_embed_dim=192, decoder_depth=4, decoder_num_heads=3),
    "base_patch16_160": dict(decoder_embed_dim=384, decoder_depth=4, decoder_num_heads=6),
    "large_patch16_160": dict(decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=8),
}
RELEASED = ("small_patch16_160", "base_patch16_160")     # whose weights are on the hub
# timm's own arguments, which would do nothing here, and what to use instead
_FOREIGN = {"num_classes": "image_classes and video_classes",
            "global_pool": "nothing: the mean over tokens is the model's",
            "in_chans": "nothing: inputs have 3 channels"}


def _timm_cfg(variant: str, encoder: str = "", **kwargs) -> dict:
    return dict(input_size=(3, *[VARIANTS[variant]["img_size"]] * 2), mean=MEAN, std=STD,
                hf_hub_id="cyinen/S4D" if variant in RELEASED else None, interpolation="bicubic",
                num_classes=7, first_conv=f"{encoder}patch_embed.proj", **kwargs)


default_cfgs = generate_default_cfgs(
    {f"s4d_{v}": _timm_cfg(v, classifier=("head.image", "head.video")) for v in VARIANTS}
    | {f"s4d_mae_{v}": _timm_cfg(v, "encoder.", classifier=None) for v in VARIANTS})


def _register(name: str, cls: type, variant: str) -> None:
    """Registers the function `name` with timm, which looks it up in this module."""
    def build(pretrained: bool = False, **kwargs):
        for key, instead in _FOREIGN.items():
            if key in kwargs:
                raise ConfigError(f"{name} does not take {key}={kwargs[key]!r}: use {instead}")
        cache_dir = kwargs.pop("cache_dir", None)
        sizes = VARIANTS[variant] | (DECODERS[variant] if cls is DualMAE else {})
        model = build_model_with_cfg(cls, name, False, kwargs_filter=tuple(_FOREIGN),
                                     **sizes | kwargs)
        if pretrained:
            checkpoints.load_pretrained(model, model.pretrained_cfg, cache_dir)
        return model

    build.__name__, build.__module__ = name, __name__
    build.__doc__ = f"The {variant} {'masked autoencoder' if cls is DualMAE else 'classifier'}."
    globals()[name] = build
    register_model(build)


for _variant in VARIANTS:
    _register(f"s4d_{_variant}", S4D, _variant)
    _register(f"s4d_mae_{_variant}", DualMAE, _variant)


def create(name: str, **kwargs):
    """`timm.create_model` for this project's models; the error for another name lists them."""
    if name not in default_cfgs:
        raise ConfigError(f"unknown model {name!r}: choose one of {', '.join(default_cfgs)}")
    return timm.create_model(name, **kwargs)


def load_released(source: str | Path | dict) -> S4D | DualMAE:
    """Builds a checkpoint's model off its tensors, in evaluation mode, routing as released."""
    state, where = checkpoints.read_state(source)
    autoencoder = "encoder_to_decoder.weight" in state
    if not autoencoder:             # all of a classifier may lie behind one prefix
        state = {name.removeprefix("encoder."): value for name, value in state.items()}
    embed = f"{'encoder.' if autoencoder else ''}patch_embed.proj.weight"
    heads = [] if autoencoder else ["head.image.weight", "head.video.weight"]
    found = (re.fullmatch(r"blocks\.(\d+)\.moae\.w1", name) for name in state)
    start = min((int(match[1]) for match in found if match), default=None)
    first = [] if start is None else [f"blocks.{start}.moae.w1"]
    for name in (embed, *heads, *first):
        if name not in state:
            raise CheckpointError(f"no tensor {name}: this is not a whole S4D checkpoint")
        shape = tuple(state[name].shape)
        if not shape or 0 in shape:
            raise CheckpointError(f"tensor {name} has the shape {shape}, which no layer has: the "
                                  "checkpoint is damaged")
    sizes = {spec["embed_dim"]: name for name, spec in VARIANTS.items() if not spec.get("stem_dim")}
    width = len(state[embed])
    if width not in sizes:
        widths = ", ".join(map(str, sorted(sizes)))
        raise CheckpointError(f"width {width}: expected one of {widths}")
    if autoencoder:
        model = create(f"s4d_mae_{sizes[width]}")
    else:
        image, video = (len(state[name]) for name in heads)
        experts = len(state[first[0]]) if first else 0
        model = create(f"s4d_{sizes[width]}", image_classes=image, video_classes=video,
                       num_experts=experts, moae_start=start).set_routing(1.0, noise=True)
    checkpoints.fill(model, state, where, complete=True)
    return model.eval()
