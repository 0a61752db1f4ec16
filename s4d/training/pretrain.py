"""Dual-modal masked pre-training: every step is one modality, steps of both shuffled together."""
from __future__ import annotations

import json
from pathlib import Path

import torch

from .. import config as configs
from ..config import ConfigError, Pretrain
from ..data import DatasetError, fingerprint, index_of
from ..data.dataset import Joint, Samples, epoch_plan, sample_seed, to_model
from ..data.transforms import normalise, pretrain_transform
from ..models import random_mask, removed_tokens
from .loop import Loop, blank, cosine, optimizer_for, pick_device, seed_all, set_lr
from .ranks import first, of_first, rank
from .runs import Run, build, run_dir, save_weights, write_text
from .signals import Attended


def tables(cfg: Pretrain) -> dict:
    """Indexed training rows of each modality that the configuration names."""
    out = {}
    for task, source in (("image", cfg.image), ("video", cfg.video)):
        if source is not None:
            table = index_of(source, task)
            out[task] = table[table.split == "train"].reset_index(drop=True)
            if out[task].empty:
                raise DatasetError(f"{source.name} in {source.root} has no training samples: pre-training reads the train split")
    if not out:
        raise ConfigError("pre-training needs images, videos or both: both sources are None")
    return out


def parts(cfg: Pretrain, rows: dict) -> dict[str, Samples]:
    """Datasets of both modalities. Clips are decoded once and cropped and masked `repeats` times."""
    sources = {"image": cfg.image, "video": cfg.video}
    return {task: Samples(table, sources[task].root, task, cfg.img_size, cfg.num_frames, cfg.sampling_rate, num_classes=None, cache=cfg.cache,
                        transform=pretrain_transform(cfg.img_size, cfg.crop_scale, flip=task == "image"),
                        repeat_aug=cfg.repeat_aug if task == "video" else 1, crop_box=sources[task].crop_box, short_side=sources[task].short_side)
            for task, table in rows.items()}


def locate(cfg: Pretrain, runs: str | Path = "runs", rows: dict | None = None) -> Run:
    """The run of this configuration on the data that lie there now, whether or not it was trained.

    Args:
        rows: result of `tables`, when it is at hand.
    """
    roots = {"image": cfg.image and cfg.image.root, "video": cfg.video and cfg.video.root}
    return Run(run_dir(cfg, runs, [fingerprint(t, roots[task]) for task, t in (rows or tables(cfg)).items()]))


def plan(cfg: Pretrain, data: dict[str, Samples], epoch: int):
    return epoch_plan(data, {"image": cfg.image_batch_size, "video": cfg.video_batch_size}, {"image": 1.0, "video": cfg.video_epoch_fraction},
                      {"image": False, "video": False}, cfg.seed, epoch)


def pretrain(cfg: Pretrain, runs: str | Path = "runs") -> Run:
    """Pre-trains, or finds the finished run of the same configuration and data, or continues an interrupted one.

    Under torchrun every process calls it; the run is the same for any number of them.

    Returns:
        the `Run`; its metrics have one row a step (step, epoch, modality, loss, lr).
    Raises:
        RunError, DatasetError, ConfigError: one sentence each.
    Source: METHOD section 4. Differs: bf16 instead of fp16 autocast, so no loss scaling.
    """
    device = pick_device(cfg.deterministic)
    rows = tables(cfg)
    run = locate(cfg, runs, rows)
    if of_first(run.done):
        return run
    with Attended(run) as attended:
        fit(cfg, run, rows, device, attended)
    return run


def fit(cfg: Pretrain, run: Run, rows: dict, device: torch.device, attended: Attended) -> None:
    """The loop of pre-training, from step 0 or from the last state, to the finished run."""
    if rank() == 0:
        write_text(run.dir / "config.json", json.dumps(configs.to_dict(cfg), indent=1))
    seed_all(cfg.seed)
    with first():
        data = parts(cfg, rows)
    model = build(cfg).to(device).train()
    optimizer = optimizer_for(model, cfg.betas, cfg.weight_decay)
    per_epoch = len(plan(cfg, data, 0))
    steps = max(1, round(cfg.epochs * per_epoch))
    peak = cfg.lr * cfg.image_batch_size / 512
    ratio = {"image": cfg.image_mask_ratio, "video": cfg.video_mask_ratio}
    removed = {task: removed_tokens(model.encoder.num_tokens[task], share) for task, share in ratio.items()}
    blanks = lambda task, n: (blank(cfg, task, n, device), random_mask(n, model.encoder.num_tokens[task], ratio[task],
                                                                        torch.Generator().manual_seed(0), device))
    attended.loop = loop = Loop(run, cfg, "pre-training", steps, sum(map(len, rows.values())), model, optimizer, device, blanks,
                                attended.signals)
    joint, value, split = Joint(data), None, loop.split

    while loop.step < steps:
        epoch, inside = divmod(loop.step, per_epoch)
        for batch in loop.load(joint, plan(cfg, data, epoch)[inside: inside + steps - loop.step]):
            task = batch["task"]
            if split.total:
                lr = cosine(loop.step, steps, round(cfg.warmup_ratio * steps), peak)
                set_lr(optimizer, lr)
                x = normalise(to_model(batch["clip"].to(device, non_blocking=True), task))   # [B, 3, (T,) H, W]
                draw = torch.Generator().manual_seed(sample_seed(cfg.seed, loop.step, 31))
                mask = random_mask(split.total, model.encoder.num_tokens[task], ratio[task], draw, device)   # [B, L], True = removed
                for x, mask in loop.pieces(x, split.part(mask)):
                    with loop.autocast():
                        loss = split.net(x, mask, removed[task])
                    loop.backward(loss)
                value, _ = loop.update()
                loop.note(step=loop.step, epoch=round(loop.step / per_epoch, 4), modality=task, loss=round(value, 6), lr=lr)
            loop.advance(task, value)
    if rank() == 0:
        save_weights(run.dir / "weights.safetensors", model.state_dict())
    loop.finish("pretrain", device)
