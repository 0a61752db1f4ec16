"""Weights of the authors' release: reading every form they come in, and moving an encoder into a classifier."""
from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import torch
from huggingface_hub import list_repo_files
from safetensors.torch import load_file
from timm.models import load_pretrained as timm_load
from torch import Tensor, nn


STARTED_FROM = "vit_{size}_voxceleb2+affectnet_100.pt"     # the file that the release's scripts fine-tune (finetune/scripts)


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit; the message names the file or the tensors."""


def read_state(source: str | Path | dict) -> dict[str, Tensor]:
    """Tensors of a checkpoint: safetensors, or a torch pickle `{"model": ...}`, `{"module": ...}` or bare.

    Pickles are read with `weights_only=True` and an allow-list (an argparse namespace, as the release saves); code in a file
    is never run.

    Raises:
        CheckpointError: naming the file and the cause.
    """
    if not isinstance(source, dict):
        path = Path(source)
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at {path}: give the path of a .pth, .pt or .safetensors file")
        try:
            if path.suffix == ".safetensors":
                source = load_file(path)
            else:
                with torch.serialization.safe_globals([argparse.Namespace]):
                    source = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:      # torch raises many kinds, some without a text
            cause = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"cannot read checkpoint {path}: {cause}; it may be truncated, or hold objects "
                                  "other than tensors, which are refused: save its state_dict alone") from error
    for key in ("model", "module"):
        if isinstance(source, dict) and isinstance(source.get(key), dict):
            source = source[key]
    found = source.items() if isinstance(source, dict) else ()
    state = {k.removeprefix("module."): v for k, v in found if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise CheckpointError("the checkpoint holds no tensors: expected a state_dict, bare or under 'model' or 'module'")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta:
            raise CheckpointError(f"tensor {name} is {'without content' if value.is_meta else 'sparse'}: save a state_dict of plain tensors")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"tensor {name} holds NaN or infinite values: the checkpoint is damaged or its training diverged")
    return state


def from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The release's tensor names -> ours; experts are stacked `[E, ...]`."""
    out, experts = {}, {}
    for name, value in state.items():
        found = re.fullmatch(r"(blocks\.\d+)\.moe_layer\.experts\.(\d+)\.(fc[12])\.(weight|bias)", name)
        if found:
            block, e, layer, kind = found.groups()
            key = f"{block}.moae.{'w' if kind == 'weight' else 'b'}{layer[-1]}"
            experts.setdefault(key, {})[int(e)] = value
            continue
        name = name.replace(".moe_layer.router.topkroute_linear.", ".moae.router.")
        out[name.replace(".moe_layer.router.noise_linear.", ".moae.noise_proj.")] = value
    for key, parts in experts.items():
        if sorted(parts) != list(range(len(parts))) or len({v.shape for v in parts.values()}) > 1:
            raise CheckpointError(f"the experts of {key} are {', '.join(f'{e}: {tuple(parts[e].shape)}' for e in sorted(parts))}: expected "
                                  "numbers from 0 without a gap, all of one shape; the checkpoint is incomplete")
        out[key] = torch.stack([parts[e] for e in range(len(parts))])
    return out


def to_released(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors under the release's names; the inverse of `from_released`, lossless."""
    out = {}
    for name, value in model.state_dict().items():
        found = re.fullmatch(r"(blocks\.\d+)\.moae\.([wb])([12])", name)
        if found:
            block, kind, layer = found.groups()
            for e, part in enumerate(value):
                out[f"{block}.moe_layer.experts.{e}.fc{layer}.{'weight' if kind == 'w' else 'bias'}"] = part.clone()
            continue
        name = name.replace(".moae.router.", ".moe_layer.router.topkroute_linear.")
        out[name.replace(".moae.noise_proj.", ".moe_layer.router.noise_linear.")] = value.clone()
    return out


def load_released(source: str | Path | dict) -> nn.Module:
    """Builds the model a released checkpoint was saved from; kind, size, classes and experts are read off the tensors.

    Args:
        source: a file, or a state dictionary.
    Returns:
        `DualMAE` or `S4D` in evaluation mode; a classifier routes as the release does (capacity 1.0 and noise).
    Raises:
        CheckpointError: naming what is missing, unexpected or of the wrong shape.
    """
    from . import DECODERS, VARIANTS, create
    state = from_released(read_state(source))
    prefix = "encoder." if "encoder_to_decoder.weight" in state else ""
    width = _first_axis(state, f"{prefix}patch_embed.proj.weight", "this is not an S4D checkpoint")
    sizes = {v["embed_dim"]: k for k, v in VARIANTS.items() if not v.get("stem_dim")}
    if width not in sizes:
        raise CheckpointError(f"width {width}: expected one of {', '.join(map(str, sorted(sizes)))}")
    variant = sizes[width]
    if prefix:
        model = create(f"s4d_mae_{variant}", **DECODERS[variant])
    else:
        layers = sorted(int(found[1]) for found in (re.fullmatch(r"blocks\.(\d+)\.moae\.w1", k) for k in state) if found)
        classes = {f"{t}_classes": _first_axis(state, f"head.{t}.weight", "a fine-tuned S4D has one head per task")
                   for t in ("image", "video")}
        experts = _first_axis(state, f"blocks.{layers[0]}.moae.w1", "it has experts") if layers else 0
        model = create(f"s4d_{variant}", num_experts=experts, moae_start=layers[0] if layers else None, **classes)
        model.set_routing(capacity_factor=1.0, noise=True)
    load_exactly(model, state)
    return model.eval()


def _first_axis(state: dict[str, Tensor], name: str, otherwise: str) -> int:
    """Length of a tensor's first axis, from which a model's size is read.

    Raises:
        CheckpointError: for a tensor that is missing (`otherwise` says what that means) or has no axis.
    """
    if name not in state:
        raise CheckpointError(f"no tensor {name}: {otherwise}")
    if not state[name].ndim or not state[name].numel():
        raise CheckpointError(f"tensor {name} has the shape {tuple(state[name].shape)}, which no layer has: the checkpoint is damaged")
    return state[name].shape[0]


def load_exactly(model: nn.Module, state: dict[str, Tensor]) -> None:
    """`load_state_dict` whose error is a sentence: the first missing, unexpected or misshapen tensors."""
    check_names(model.state_dict(), state)
    model.load_state_dict(state)


def check_names(own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Raises CheckpointError unless both hold the same names and shapes."""
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}" for k in own if k in state and own[k].shape != state[k].shape]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", shapes)):
        if names:
            raise CheckpointError(f"{len(names)} tensors {what}, among them {', '.join(names[:3])}")


def checkpoint_filter_fn(state: dict, model: nn.Module) -> dict[str, Tensor]:
    """timm's hook: a checkpoint's tensors as a complete state dictionary of `model`, names and shapes checked.

    Every form that `load_released` reads will do. A head of another number of classes keeps the model's own start, with a warning;
    so do experts, heads and `fc_norm` when a pre-training checkpoint goes into a classifier.

    Raises:
        CheckpointError: naming what is missing, unexpected or of the wrong shape.
    """
    state, own = from_released(read_state(state)), model.state_dict()
    if "fc_norm.weight" in own and any(k.startswith(("encoder.", "backbone.")) for k in state):
        taken, _ = encoder_part(state, own)
        return {**own, **taken}
    for name in [k for k in own if re.fullmatch(r"head\.(image|video)\.(weight|bias)", k) and k in state]:
        if own[name].shape != state[name].shape and own[name].shape[1:] == state[name].shape[1:]:
            logging.getLogger(__name__).warning("%s starts fresh: %d classes in the checkpoint, %d in the model", name,
                                                len(state[name]), len(own[name]))
            state[name] = own[name]
    check_names(own, state)
    return state


def load_pretrained(model: nn.Module, cfg: dict, cache_dir: str | Path | None = None) -> None:
    """Fills a model from the source that timm's `pretrained_cfg` names: `state_dict`, `file`, or `hf_hub_filename` in `hf_hub_id`.

    Without a file name the hub is asked what it holds, see `hub_file`.

    Raises:
        CheckpointError: when no source is named, a file cannot be fetched or read, or it does not fit.
    """
    hub, name, what = cfg.get("hf_hub_id"), cfg.get("hf_hub_filename"), cfg.get("architecture", "this model")
    source = cfg.get("state_dict") or cfg.get("file")
    if not source and not hub:
        raise CheckpointError(f"no weights of {what} were released: leave pretrained=True out, or name your own with "
                              "pretrained_cfg_overlay=dict(file='...')")
    if not source:
        name = name or hub_file(hub, what)
        fetched, where = [], {"cache_dir": cache_dir} if cache_dir else {}
        wanted = {"hf_hub_id": hub, "hf_hub_filename": name, "custom_load": "hf"}
        try:      # timm fetches the file and hands its path to what it is to fill
            timm_load(SimpleNamespace(load_pretrained=fetched.append), wanted, **where)
        except Exception as error:      # no network, no such file, no permission: the hub's client has a kind for each
            cause = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"cannot fetch {name} from huggingface.co/{hub}: {cause}; download it yourself and name it with "
                                  "pretrained_cfg_overlay=dict(file='...')") from error
        source = fetched[0]
    model.load_state_dict(checkpoint_filter_fn(read_state(source), model))


def hub_file(hub: str, model: str) -> str:
    """The file of a hub repository that fills a model: the one that the release starts fine-tuning from, or the only one of the model's size.

    Args:
        hub: "owner/name".
        model: name of the model, which holds its size: s4d_base_patch16_160.
    Raises:
        CheckpointError: when the hub cannot be asked, or its files leave a choice; they are named.
    """
    remedy = "name one with pretrained_cfg_overlay=dict(hf_hub_filename='...'), or a local copy with dict(file='...')"
    try:
        files = list_repo_files(hub)
    except Exception as error:          # as below
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"huggingface.co/{hub} does not say which files it holds ({cause}): {remedy}") from error
    size = re.search(r"small|base|large|nano", model)[0]
    weights = [f for f in files if Path(f).suffix in (".pt", ".pth", ".safetensors")]
    fitting = [f for f in weights if size in f.lower()]
    chosen = [f for f in fitting if Path(f).name == STARTED_FROM.format(size=size)] or fitting
    if len(chosen) == 1:
        return chosen[0]
    raise CheckpointError(f"huggingface.co/{hub} holds {len(chosen) or 'no'} files that may be {model} ({', '.join(chosen or weights) or 'no weights'}): "
                          f"{remedy}")


def encoder_from(source, model: nn.Module) -> dict[str, list[str]]:
    """Moves pre-trained encoder weights into a classifier.

    Args:
        source: a `DualMAE`, a state dictionary or a checkpoint file (ours or the release's, `encoder.` or `backbone.`).
        model: an `S4D`.
    Returns:
        {"set": names moved, "fresh": names left at their start (experts, heads, `fc_norm`), "unused": names not taken}.
    Raises:
        CheckpointError: when no encoder weights are found, some are missing, or a shape differs.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else from_released(read_state(source))
    own = model.state_dict()
    taken, unused = encoder_part(state, own)
    model.load_state_dict(taken, strict=False)
    return {"set": list(taken), "fresh": sorted(set(own) - set(taken)), "unused": unused}


def encoder_part(state: dict[str, Tensor], own: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a pre-training checkpoint that a classifier with the tensors `own` takes, under its names, and the names of the rest.

    Raises:
        CheckpointError: as `encoder_from`.
    """
    encoder = {re.sub(r"^(encoder|backbone)\.", "", k): v for k, v in state.items() if re.match(r"(encoder|backbone)\.", k)}
    taken = {k: v for k, v in encoder.items() if not k.startswith("norm.") and k in own}
    if not any(k.startswith("blocks.") for k in taken):
        raise CheckpointError("no encoder weights in the checkpoint: expected names that begin with 'encoder.' or 'backbone.'")
    missing = [k for k in own if k not in taken and not re.match(r"fc_norm\.|head\.|blocks\.\d+\.moae\.", k)]
    if missing:
        raise CheckpointError(f"{len(missing)} encoder tensors are not in the checkpoint, among them {', '.join(missing[:3])}: pre-train "
                              "and fine-tune the same variant")
    for k, v in taken.items():
        if v.shape != own[k].shape:
            raise CheckpointError(f"tensor {k}: {tuple(v.shape)} in the checkpoint, {tuple(own[k].shape)} in the model; "
                                  "pre-train and fine-tune the same variant")
    return taken, sorted(set(state) - {f"{prefix}.{k}" for prefix in ("encoder", "backbone") for k in taken})
