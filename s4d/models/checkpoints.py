"""Weights in files: every usual container, the release's tensor names, timm's `pretrained=True`."""
import logging
import re
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, list_repo_files
from safetensors.torch import load_file
from torch import Tensor, nn

CONTAINERS = ("model", "module", "state_dict", "model_ema")
RENAMED = ((".moe_layer.router.topkroute_linear.", ".moae.router."),
           (".moe_layer.router.noise_linear.", ".moae.noise_proj."))      # the release's, ours
STARTED_FROM = "vit_{size}_voxceleb2+affectnet_100.pt"   # the file that the release fine-tunes


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


def read_state(source: str | Path | dict) -> tuple[dict[str, Tensor], str]:
    """Tensors of a checkpoint under our names, from any usual container, and its own name."""
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
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"tensor {name} holds NaN or infinite values: the checkpoint is "
                                  "damaged or its training diverged")
    return from_released(state), "the checkpoint" if isinstance(source, dict) else str(source)


def from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The release's tensor names -> ours; experts are stacked `[E, ...]`."""
    out, experts = {}, {}
    for name, value in state.items():
        pattern = r"(.*blocks\.\d+)\.moe_layer\.experts\.(\d+)\.fc([12])\.(weight|bias)"
        if found := re.fullmatch(pattern, name):
            block, expert, layer, kind = found.groups()
            stacked = f"{block}.moae.{'w' if kind == 'weight' else 'b'}{layer}"
            experts.setdefault(stacked, {})[int(expert)] = value
            continue
        for theirs, ours in RENAMED:
            name = name.replace(theirs, ours)
        out[name] = value
    for name, parts in experts.items():
        try:
            out[name] = torch.stack([parts[e] for e in range(len(parts))])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"the experts of {name} have a gap in their numbers, or several "
                                  "shapes: the checkpoint is incomplete") from error
    return out


def to_released(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors under the release's names; the inverse of `from_released`, lossless."""
    out = {}
    for name, value in model.state_dict().items():
        if found := re.fullmatch(r"(.*blocks\.\d+)\.moae\.([wb])([12])", name):
            block, kind, layer = found.groups()
            end = f"fc{layer}.{'weight' if kind == 'w' else 'bias'}"
            for e, part in enumerate(value):
                out[f"{block}.moe_layer.experts.{e}.{end}"] = part.clone()
            continue
        for theirs, ours in RENAMED:
            name = name.replace(ours, theirs)
        out[name] = value.clone()
    return out


def fill(model: nn.Module, state: dict[str, Tensor], where: str | None = None,
         complete: bool = False) -> None:
    """Copies a checkpoint's tensors into a model; with `complete`, every tensor must be there.

    A classifier takes the encoder of a pre-training checkpoint. A head with another number of
    classes keeps its start. Tensors of a wrong shape, and fewer than half, are errors. What was
    not loaded from `where` is logged in a line, unless that is None.
    """
    own = model.state_dict()
    if "fc_norm.weight" in own:
        state = {name.removeprefix("encoder."): value for name, value in state.items()}
    loaded = {n: state[n] for n in own if n in state and state[n].shape == own[n].shape}
    wrong = [f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}" for n in own
             if n in state and n not in loaded and (complete or not n.startswith("head."))]
    if wrong:
        raise CheckpointError(f"{len(wrong)} tensors of the wrong shape, among them "
                              f"{', '.join(wrong[:3])}: the checkpoint is of another model")
    missing = [name for name in own if name not in loaded]
    if 2 * len(loaded) < len(own) or (missing and complete):
        raise CheckpointError(f"{len(missing)} of the model's {len(own)} tensors missing, among "
                              f"them {', '.join(missing[:3])}: the checkpoint is of another "
                              "model, or incomplete")
    left_out = [name for name in state if name not in loaded]
    model.load_state_dict(loaded, strict=False)

    def places(names: list[str]) -> str:        # the blocks, heads and other parts they belong to
        found = (re.match(r"(encoder\.)?(blocks\.\d+(\.moae)?|head\.\w+|[^.]+)", n) for n in names)
        return ", ".join(dict.fromkeys(part[0] for part in found)) or "nothing"

    if where and (missing or left_out):
        logging.getLogger(__name__).warning(
            "%s: %d of the model's %d tensors loaded; missing and left at their start: %s; "
            "left out: %s", where, len(loaded), len(own), places(missing), places(left_out))


def encoder_from(source: nn.Module | str | Path | dict, model: nn.Module) -> None:
    """Copies the encoder of a `DualMAE` or a checkpoint into an `S4D`; the rest keeps its start."""
    if isinstance(source, nn.Module):
        state, where = source.state_dict(), None      # None: no line is logged
    else:
        state, where = read_state(source)
    if not any(name.startswith("encoder.blocks.") for name in state):
        raise CheckpointError(f"no encoder weights in {where or type(source).__name__}: expected "
                              "names that begin with 'encoder.' or 'backbone.'")
    fill(model, state, where)


def load_pretrained(model: nn.Module, cfg: dict, cache_dir: str | Path | None = None) -> None:
    """Fills a model from what timm's `pretrained_cfg` names: `state_dict`, `file`, or the hub."""
    name, hub, file = cfg["architecture"], cfg.get("hf_hub_id"), cfg.get("hf_hub_filename")
    source = cfg.get("state_dict") or cfg.get("file")
    if not source and not hub:
        raise CheckpointError(f"no weights of {name} were released: name your own with "
                              "pretrained_cfg_overlay=dict(file='...')")
    if not source:
        try:
            if not file:        # the one that the release's scripts start from, in any folder
                file = STARTED_FROM.format(size=name.split("_")[-3])    # small or base
                file = next((f for f in list_repo_files(hub) if Path(f).name == file), file)
            source = hf_hub_download(hub, file, cache_dir=cache_dir)
        except Exception as error:      # no network, no such file, no permission: many kinds
            cause = str(error).partition("\n")[0]
            raise CheckpointError(
                f"cannot fetch {file} from huggingface.co/{hub}: {cause}; name another file there "
                "with pretrained_cfg_overlay=dict(hf_hub_filename='...'), or download "
                "one and give dict(file='...')") from error
    fill(model, *read_state(source))
