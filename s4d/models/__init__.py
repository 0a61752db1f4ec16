"""The S4D models. Importing this package registers them with timm."""
from pathlib import Path

import timm
from timm.models import generate_default_cfgs, register_model, resolve_pretrained_cfg

from ..config import ConfigError
from . import checkpoints
from .checkpoints import CheckpointError, encoder_from, to_released
from .mae import MEAN, STD, DualMAE
from .moae import MoAE
from .tokens import random_mask, removed_tokens, sincos
from .vit import S4D, Encoder

__all__ = ["S4D", "DualMAE", "Encoder", "MoAE", "CheckpointError", "encoder_from", "load_released",
           "to_released", "random_mask", "removed_tokens", "sincos", "create", "MEAN", "STD",
           "VARIANTS"]

# The encoder of each variant (docs/method.md section 3); it sets the decoder's size. The nano
# variants are ours: they train on a laptop, on faces of 64 px.
_PAPER = dict(img_size=160, num_frames=16, patch_size=16)
VARIANTS = {
    "nano_patch16_64": dict(img_size=64, num_frames=8, patch_size=16, embed_dim=128, depth=3,
                            num_heads=4, stem_dim=32),
    "small_patch16_160": dict(_PAPER, embed_dim=384, depth=12, num_heads=6),
    "base_patch16_160": dict(_PAPER, embed_dim=768, depth=12, num_heads=12),
    "large_patch16_160": dict(_PAPER, embed_dim=1024, depth=24, num_heads=16),
}
default_cfgs = generate_default_cfgs({
    f"{kind}_{name}": dict(input_size=(3, spec["img_size"], spec["img_size"]), mean=MEAN, std=STD,
                           hf_hub_id="cyinen/S4D" if name.startswith(("small", "base")) else None)
    for kind in ("s4d", "s4d_mae") for name, spec in VARIANTS.items()})


def _register(name: str, cls: type, variant: str) -> None:
    """Registers the function `name` with timm, which looks it up in this module."""
    def build(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None,
              **kwargs):
        model = cls(**VARIANTS[variant] | kwargs)
        cfg = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay).to_dict()
        model.pretrained_cfg = model.default_cfg = cfg
        if pretrained:
            checkpoints.load_pretrained(model, cfg, cache_dir)
        return model

    build.__name__, build.__module__ = name, __name__
    globals()[name] = build
    register_model(build)


for _variant in VARIANTS:
    _register(f"s4d_{_variant}", S4D, _variant)
    _register(f"s4d_mae_{_variant}", DualMAE, _variant)


def create(name: str, **kwargs) -> S4D | DualMAE:
    """`timm.create_model` for this project's models; the error for another name lists them."""
    if name not in default_cfgs:
        raise ConfigError(f"unknown model {name!r}: choose one of {', '.join(default_cfgs)}")
    return timm.create_model(name, **kwargs)


def load_released(source: str | Path | dict) -> S4D | DualMAE:
    """Builds the model that a checkpoint's tensors describe, in evaluation mode, as released."""
    state, where = checkpoints.read_state(source)
    autoencoder = "encoder_to_decoder.weight" in state
    if not autoencoder:             # all of a classifier may lie behind one prefix
        state = {name.removeprefix("encoder."): value for name, value in state.items()}

    def rows(name: str) -> int:
        if name not in state:
            raise CheckpointError(f"no tensor {name} in {where}: not a whole S4D checkpoint")
        return len(state[name])

    width = rows(f"{'encoder.' if autoencoder else ''}patch_embed.proj.weight")
    sizes = {spec["embed_dim"]: name for name, spec in VARIANTS.items() if "stem_dim" not in spec}
    if width not in sizes:
        raise CheckpointError(f"width {width}: expected one of {sorted(sizes)}")
    if autoencoder:
        model = create(f"s4d_mae_{sizes[width]}")
    else:
        blocks = range(VARIANTS[sizes[width]]["depth"])
        start = next((i for i in blocks if f"blocks.{i}.moae.w1" in state), None)
        experts = 0 if start is None else rows(f"blocks.{start}.moae.w1")
        model = create(f"s4d_{sizes[width]}", image_classes=rows("head.image.weight"),
                       video_classes=rows("head.video.weight"), num_experts=experts,
                       moae_start=start).set_routing(1.0, noise=True)
    checkpoints.fill(model, state, where, complete=True)
    return model.eval()
