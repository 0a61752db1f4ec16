"""The S4D models. Importing this package registers them with timm."""
from __future__ import annotations

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from ..config import ConfigError
from .mae import MEAN, STD, DualMAE
from .moae import MoAE
from .checkpoints import CheckpointError, checkpoint_filter_fn, encoder_from, load_pretrained, load_released, to_released
from .vit import S4D, Encoder, count_parameters
from .tokens import random_mask, removed_tokens, sincos

__all__ = ["S4D", "DualMAE", "Encoder", "MoAE", "CheckpointError", "checkpoint_filter_fn", "encoder_from", "load_released", "to_released",
           "random_mask", "removed_tokens", "sincos", "count_parameters", "MEAN", "STD", "VARIANTS", "DECODERS", "HUB"]

# Encoder and decoder of each variant (METHOD section 3). The nano variants are ours: they train on a laptop, on 64 px faces.
VARIANTS = {
    "nano_patch16_64": dict(img_size=64, num_frames=8, patch_size=16, embed_dim=128, depth=3, num_heads=4, stem_dim=32),
    "small_patch16_160": dict(img_size=160, num_frames=16, patch_size=16, embed_dim=384, depth=12, num_heads=6),
    "base_patch16_160": dict(img_size=160, num_frames=16, patch_size=16, embed_dim=768, depth=12, num_heads=12),
    "large_patch16_160": dict(img_size=160, num_frames=16, patch_size=16, embed_dim=1024, depth=24, num_heads=16),
}
DECODERS = {
    "nano_patch16_64": dict(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=2),
    "small_patch16_160": dict(decoder_embed_dim=192, decoder_depth=4, decoder_num_heads=3),
    "base_patch16_160": dict(decoder_embed_dim=384, decoder_depth=4, decoder_num_heads=6),
    "large_patch16_160": dict(decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=8),
}

HUB = "cyinen/S4D"    # the authors' weights on the Hugging Face hub: small and base, pre-trained and fine-tuned

default_cfgs = generate_default_cfgs({f"{kind}_{variant}": dict(
    input_size=(3, spec["img_size"], spec["img_size"]), mean=MEAN, std=STD, interpolation="bicubic", num_classes=7,
    hf_hub_id=HUB if variant.startswith(("small", "base")) else None,
    first_conv=f"{inside}patch_embed.proj", classifier=("head.image", "head.video") if kind == "s4d" else None)
    for kind, inside in (("s4d", ""), ("s4d_mae", "encoder.")) for variant, spec in VARIANTS.items()})

_FOREIGN = {"num_classes": "image_classes and video_classes", "global_pool": "nothing: the mean over tokens is the model's",
            "in_chans": "nothing: inputs have 3 channels"}      # timm's defaults; asked for by a user they would do nothing


def _build(cls, name: str, pretrained: bool, sizes: dict, given: dict):
    for key, instead in _FOREIGN.items():
        if key in given:
            raise ConfigError(f"{name} does not take {key}={given[key]!r}: use {instead}")
    cache_dir = given.pop("cache_dir", None)
    model = build_model_with_cfg(cls, name, False, kwargs_filter=tuple(_FOREIGN), **{**sizes, **given})
    if pretrained:
        load_pretrained(model, model.pretrained_cfg, cache_dir)
    return model


def _register(variant: str) -> None:
    def classifier(pretrained: bool = False, **kwargs) -> S4D:
        return _build(S4D, f"s4d_{variant}", pretrained, VARIANTS[variant], kwargs)

    def autoencoder(pretrained: bool = False, **kwargs) -> DualMAE:
        return _build(DualMAE, f"s4d_mae_{variant}", pretrained, {**VARIANTS[variant], **DECODERS[variant]}, kwargs)

    for fn, prefix, what in ((classifier, "s4d", "classifier"), (autoencoder, "s4d_mae", "masked autoencoder")):
        fn.__name__ = f"{prefix}_{variant}"
        fn.__module__ = __name__
        fn.__doc__ = f"The {variant} {what}."
        globals()[fn.__name__] = fn      # timm looks its entry points up in their module
        register_model(fn)


for _variant in VARIANTS:
    _register(_variant)


def create(name: str, **kwargs):
    """`timm.create_model` for this project's models, with an error that lists the names.

    Raises:
        ConfigError: for a name that is not one of this package's.
    """
    if name not in default_cfgs:
        raise ConfigError(f"unknown model {name!r}: choose one of {', '.join(default_cfgs)}")
    return timm.create_model(name, **kwargs)
