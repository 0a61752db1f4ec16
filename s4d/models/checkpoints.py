"""Weights in files: every usual container, the release's tensor names, timm's `pretrained=True`."""
from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import torch
from huggingface_hub import list_repo_files
from safetensors.torch import load_file
from timm.models import load_pretrained as timm_load
from torch import Tensor, nn

CONTAINERS = ("model", "module", "state_dict", "model_ema")
STARTED_FROM = "vit_{size}_voxceleb2+affectnet_100.pt"   # the file that the release fine-tunes
ANOTHER = "pretrained_cfg_overlay=dict(file='...')"


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit; the message names the file or the tensors."""


class _Skipped:
    """Stands for what a pickle holds beside tensors: settings, numbers and arrays of numpy."""

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


HARMLESS = [(_Skipped, name) for name in (
    "argparse.Namespace", "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct")]


def read_file(path: Path) -> dict:
    """The content of a checkpoint file; a pickle is opened with `weights_only`, no code is run."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: give the path of a .pth, .pt or "
                              ".safetensors file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:      # torch raises many kinds
        refused = re.search(r"GLOBAL (\S+)", str(error))
        cause = "it is truncated, or no checkpoint"
        if refused:
            cause = f"it holds {refused[1]}, and code is refused; save its state_dict alone"
        raise CheckpointError(f"cannot read checkpoint {path}: {cause}") from error


def read_state(source: str | Path | dict) -> dict[str, Tensor]:
    """Tensors of a checkpoint under our names, out of any usual container and prefix."""
    content = source if isinstance(source, dict) else read_file(Path(source))
    for _ in range(2):              # a container may lie in another
        for key in CONTAINERS:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
                break
    state = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(name, str) and isinstance(value, Tensor):
            name = re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", ""))
            state[re.sub(r"^backbone\.", "encoder.", name)] = value
    if not state:
        raise CheckpointError("the checkpoint holds no tensors: expected a state_dict, bare or "
                              f"under {', '.join(CONTAINERS)}")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta:
            what = "without content" if value.is_meta else "sparse"
            raise CheckpointError(f"tensor {name} is {what}: save a state_dict of plain tensors")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"tensor {name} holds NaN or infinite values: the checkpoint is "
                                  "damaged or its training diverged")
    return from_released(state)


def from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The release's tensor names -> ours; experts are stacked `[E, ...]`."""
    out, experts = {}, {}
    for name, value in state.items():
        pattern = r"(.*blocks\.\d+)\.moe_layer\.experts\.(\d+)\.fc([12])\.(weight|bias)"
        found = re.fullmatch(pattern, name)
        if found:
            block, expert, layer, kind = found.groups()
            stacked = f"{block}.moae.{'w' if kind == 'weight' else 'b'}{layer}"
            experts.setdefault(stacked, {})[int(expert)] = value
            continue
        name = name.replace(".moe_layer.router.topkroute_linear.", ".moae.router.")
        out[name.replace(".moe_layer.router.noise_linear.", ".moae.noise_proj.")] = value
    for name, parts in experts.items():
        parts = dict(sorted(parts.items()))
        if list(parts) != list(range(len(parts))) or len({v.shape for v in parts.values()}) > 1:
            shapes = ", ".join(f"{e}: {tuple(v.shape)}" for e, v in parts.items())
            raise CheckpointError(f"the experts of {name} are {shapes}: expected numbers from 0 "
                                  "without a gap, all of one shape; the checkpoint is incomplete")
        out[name] = torch.stack(list(parts.values()))
    return out


def to_released(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors under the release's names; the inverse of `from_released`, lossless."""
    out = {}
    for name, value in model.state_dict().items():
        found = re.fullmatch(r"(.*blocks\.\d+)\.moae\.([wb])([12])", name)
        if found:
            block, kind, layer = found.groups()
            end = f"fc{layer}.{'weight' if kind == 'w' else 'bias'}"
            for e, part in enumerate(value):
                out[f"{block}.moe_layer.experts.{e}.{end}"] = part.clone()
            continue
        name = name.replace(".moae.router.", ".moe_layer.router.topkroute_linear.")
        name = name.replace(".moae.noise_proj.", ".moe_layer.router.noise_linear.")
        out[name] = value.clone()
    return out


def fill(model: nn.Module, state: dict[str, Tensor], where: str | None = None,
         complete: bool = False) -> dict[str, list[str]]:
    """Fills a model with those tensors of a checkpoint that it has.

    A classifier takes the encoder of a pre-training checkpoint. A head with another number of
    classes keeps its start.

    Args:
        where: name of the checkpoint in a logged line on what was not loaded; None logs nothing.
        complete: a missing tensor is an error.
    Returns:
        {"loaded": names, "missing": names left at their start, "left_out": of the checkpoint}.
    Raises:
        CheckpointError: for tensors of the wrong shape, and where fewer than half are found.
    """
    own = model.state_dict()
    inside = "encoder." if "fc_norm.weight" in own else ""
    offered = {name.removeprefix(inside): name for name in state}
    both = {name: state[offered[name]] for name in own if name in offered}
    wrong = [name for name, value in both.items() if value.shape != own[name].shape]
    heads = {name for name in wrong if name.startswith("head.") and not complete}
    shapes = [f"{n} {tuple(both[n].shape)} instead of {tuple(own[n].shape)}"
              for n in wrong if n not in heads]
    if shapes:
        raise CheckpointError(f"{len(shapes)} tensors of the wrong shape, among them "
                              f"{', '.join(shapes[:3])}: the checkpoint is of another model")
    loaded = [name for name in both if name not in heads]
    missing = [name for name in own if name not in loaded]
    if 2 * len(loaded) < len(own) or (missing and complete):
        raise CheckpointError(f"{len(missing)} of the model's {len(own)} tensors missing, among "
                              f"them {', '.join(missing[:3])}: the checkpoint is of another "
                              "model, or incomplete")
    left_out = [name for short, name in offered.items() if short not in loaded]
    model.load_state_dict({name: both[name] for name in loaded}, strict=False)
    if where and (missing or left_out):
        notes = {name.removesuffix(".weight"): f" ({len(both[name])} classes, not {len(own[name])})"
                 for name in heads}
        logging.getLogger(__name__).warning(
            "%s: %d of the model's %d tensors loaded; missing and left at their start: %s; "
            "left out: %s", where, len(loaded), len(own), _places(missing, {}),
            _places(left_out, notes))
    return {"loaded": loaded, "missing": missing, "left_out": left_out}


def _places(names: list[str], notes: dict[str, str]) -> str:
    """The blocks, heads and other parts that these tensors belong to, each with its note."""
    part = re.compile(r"(encoder\.)?(blocks\.\d+(\.moae)?|head\.\w+|[^.]+)")
    parts = dict.fromkeys(part.match(name)[0] for name in names)
    return ", ".join(place + notes.get(place, "") for place in parts) or "nothing"


def encoder_from(source, model: nn.Module) -> dict[str, list[str]]:
    """Moves pre-trained encoder weights into a classifier.

    Args:
        source: a `DualMAE`, a state dictionary or a checkpoint file (ours or the release's).
        model: an `S4D`.
    Returns:
        as `fill`; experts, heads and `fc_norm` are among "missing".
    """
    if isinstance(source, nn.Module):
        return fill(model, source.state_dict())
    state, where = read_state(source), "the checkpoint" if isinstance(source, dict) else str(source)
    if not any(name.startswith("encoder.blocks.") for name in state):
        raise CheckpointError(f"no encoder weights in {where}: expected names that begin with "
                              "'encoder.' or 'backbone.'")
    return fill(model, state, where)


def load_released(source: str | Path | dict) -> nn.Module:
    """Builds the model of a released checkpoint, a file or a state dictionary, off its tensors.

    Returns:
        `DualMAE` or `S4D` in evaluation mode; a classifier routes as the release does.
    """
    from . import VARIANTS, create
    state = read_state(source)
    where = "the checkpoint" if isinstance(source, dict) else str(source)
    autoencoder = "encoder_to_decoder.weight" in state
    if not autoencoder:             # all of a classifier may lie behind one prefix
        state = {name.removeprefix("encoder."): value for name, value in state.items()}
    embed = f"{'encoder.' if autoencoder else ''}patch_embed.proj.weight"
    width = _first_axis(state, embed, "this is not an S4D checkpoint")
    sizes = {spec["embed_dim"]: name for name, spec in VARIANTS.items() if not spec.get("stem_dim")}
    if width not in sizes:
        raise CheckpointError(f"width {width}: expected one of {', '.join(map(str, sizes))}")
    if autoencoder:
        model = create(f"s4d_mae_{sizes[width]}")
    else:
        found = (re.fullmatch(r"blocks\.(\d+)\.moae\.w1", name) for name in state)
        layers = [int(match[1]) for match in found if match]
        start = min(layers, default=None)
        experts = _first_axis(state, f"blocks.{start}.moae.w1", "it has experts") if layers else 0
        classes = {f"{task}_classes": _first_axis(
            state, f"head.{task}.weight", "a fine-tuned S4D has one head per task")
            for task in ("image", "video")}
        model = create(f"s4d_{sizes[width]}", num_experts=experts, moae_start=start, **classes)
        model.set_routing(capacity_factor=1.0, noise=True)
    fill(model, state, where, complete=True)
    return model.eval()


def _first_axis(state: dict[str, Tensor], name: str, otherwise: str) -> int:
    """Length of a tensor's first axis; `otherwise` says what its absence means."""
    if name not in state:
        raise CheckpointError(f"no tensor {name}: {otherwise}")
    shape = tuple(state[name].shape)
    if not shape or 0 in shape:
        raise CheckpointError(f"tensor {name} has the shape {shape}, which no layer has: the "
                              "checkpoint is damaged")
    return shape[0]


def load_pretrained(model: nn.Module, cfg: dict, cache_dir: str | Path | None = None) -> None:
    """Fills a model from what timm's `pretrained_cfg` names: `state_dict`, `file`, or the hub."""
    hub, what = cfg.get("hf_hub_id"), cfg.get("architecture", "this model")
    source = cfg.get("state_dict") or cfg.get("file")
    if not source and not hub:
        raise CheckpointError(f"no weights of {what} were released: leave pretrained=True out, or "
                              f"name your own with {ANOTHER}")
    if not source:
        source = fetch(hub, cfg.get("hf_hub_filename") or hub_file(hub, what), cache_dir)
    where = "the checkpoint" if isinstance(source, dict) else str(source)
    fill(model, read_state(source), where)


def fetch(hub: str, name: str, cache_dir: str | Path | None) -> str:
    """The path of a file that timm fetches from the Hugging Face hub."""
    fetched, given = [], {"cache_dir": cache_dir} if cache_dir else {}
    wanted = {"hf_hub_id": hub, "hf_hub_filename": name, "custom_load": "hf"}
    try:      # timm hands the path to what it is to fill
        timm_load(SimpleNamespace(load_pretrained=fetched.append), wanted, **given)
    except Exception as error:      # no network, no such file, no permission: many kinds
        raise CheckpointError(f"cannot fetch {name} from huggingface.co/{hub}: {_cause(error)}; "
                              f"download it yourself and name it with {ANOTHER}") from error
    return fetched[0]


def hub_file(hub: str, model: str) -> str:
    """The file of a hub repository that fills `model`: the one that the release starts from, or the
    only one of the model's size; an error lists the files where that leaves a choice."""
    remedy = ("name one with pretrained_cfg_overlay=dict(hf_hub_filename='...'), or a local copy "
              "with dict(file='...')")
    try:
        files = list_repo_files(hub)
    except Exception as error:      # as in `fetch`
        raise CheckpointError(f"huggingface.co/{hub} does not say which files it holds "
                              f"({_cause(error)}): {remedy}") from error
    size = re.search(r"small|base|large|nano", model)[0]
    weights = [f for f in files if Path(f).suffix in (".pt", ".pth", ".safetensors")]
    fitting = [f for f in weights if size in f.lower()]
    chosen = [f for f in fitting if Path(f).name == STARTED_FROM.format(size=size)] or fitting
    if len(chosen) == 1:
        return chosen[0]
    listed = ", ".join(chosen or weights) or "no weights"
    raise CheckpointError(f"huggingface.co/{hub} holds {len(chosen) or 'no'} files that may be "
                          f"{model} ({listed}): {remedy}")


def _cause(error: Exception) -> str:
    """The first line of an error of a library, without escape codes."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
    return lines[0] if lines else type(error).__name__
