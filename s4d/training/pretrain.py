"""Dual-modal masked pre-training: each step is one modality, the steps of both are shuffled."""
from __future__ import annotations

from pathlib import Path

import torch

from ..config import ConfigError, Pretrain
from ..data import DatasetError, fingerprint, index_of
from ..data.dataset import Samples, epoch_plan, sample_seed, to_model
from ..data.transforms import normalise, pretrain_transform
from ..models import random_mask, removed_tokens
from .engine import Engine
from .optim import cosine, optimizer_for, seed_all, set_lr
from .parallel import first, of_first, pick_device, rank
from .runs import Run, build, run_dir, save_weights


def tables(cfg: Pretrain) -> dict:
    """Return the indexed training rows of each modality that the configuration names."""
    out = {}
    for task, source in (("image", cfg.image), ("video", cfg.video)):
        if source is not None:
            table = index_of(source, task)
            out[task] = table[table.split == "train"].reset_index(drop=True)
            if out[task].empty:
                raise DatasetError(f"{source.name} in {source.root} has no training samples: "
                                   "pre-training reads the train split")
    if not out:
        raise ConfigError("pre-training needs image, video or both: both sources are None")
    return out


def datasets(cfg: Pretrain, rows: dict) -> dict[str, Samples]:
    """Return the samples of both modalities; clips are decoded once and drawn `repeat_aug` times.
    """
    sources = {"image": cfg.image, "video": cfg.video}
    return {task: Samples(table, sources[task].root, task, cfg.img_size, cfg.num_frames,
                        cfg.sampling_rate, num_classes=None, cache=cfg.cache,
                        transform=pretrain_transform(cfg.img_size, cfg.crop_scale,
                                                     flip=task == "image"),
                        repeat_aug=cfg.repeat_aug if task == "video" else 1,
                        crop_box=sources[task].crop_box, short_side=sources[task].short_side)
            for task, table in rows.items()}


def locate(cfg: Pretrain, runs: str | Path = "runs", rows: dict | None = None) -> Run:
    """Return the run of this configuration on the data that lie there now, trained or not.

    Args:
        rows: result of `tables`, when it is at hand.
    """
    roots = {task: source.root for task, source in (("image", cfg.image), ("video", cfg.video))
             if source is not None}
    marks = [fingerprint(table, roots[task]) for task, table in (rows or tables(cfg)).items()]
    return Run(run_dir(cfg, runs, marks))


def plan(cfg: Pretrain, data: dict[str, Samples], epoch: int) -> list:
    """Return the batches of an epoch, as keys of samples."""
    return epoch_plan(data, {"image": cfg.image_batch_size, "video": cfg.video_batch_size},
                      {"image": 1.0, "video": cfg.video_epoch_fraction},
                      {"image": False, "video": False}, cfg.seed, epoch)


def pretrain(cfg: Pretrain, runs: str | Path = "runs") -> Run:
    """Pre-train, or find the finished run of the same configuration and data, or continue one.

    Under torchrun every process calls it.

    Returns:
        the `Run`; its metrics have one row a step (step, epoch, modality, loss, lr).
    Raises:
        RunError, DatasetError, ConfigError: one sentence each.
    Source: `docs/method.md`, section 4. Differs: bf16 instead of fp16, so no loss scaling.
    """
    device = pick_device(cfg.deterministic)
    rows = tables(cfg)
    run = locate(cfg, runs, rows)
    if of_first(run.done):
        return run
    with Engine(run, cfg, device) as engine:                     # lock, signals, checkpoint, log
        seed_all(cfg.seed)
        with first():
            data = datasets(cfg, rows)
        model = build(cfg).to(device).train()
        optimizer = optimizer_for(model, cfg.betas, cfg.weight_decay)
        net = engine.start("pre-training", model, optimizer, data, len(plan(cfg, data, 0)))
        peak, warmup = cfg.lr * cfg.image_batch_size / 512, round(cfg.warmup_ratio * engine.steps)
        ratio = {"image": cfg.image_mask_ratio, "video": cfg.video_mask_ratio}
        tokens = model.encoder.num_tokens                        # L by task

        for epoch in engine.epochs():
            for batch in engine.batches(plan(cfg, data, epoch)):
                task = batch["task"]
                clip = batch["clip"].to(device, non_blocking=True)
                x = normalise(to_model(clip, task))              # [B, 3, (T,) H, W]
                draw = torch.Generator().manual_seed(sample_seed(cfg.seed, engine.step, 31, rank()))
                mask = random_mask(len(x), tokens[task], ratio[task], draw, device)
                removed = removed_tokens(tokens[task], ratio[task])    # mask [B, L], True = removed
                lr = set_lr(optimizer, cosine(engine.step, engine.steps, warmup, peak))
                for x_piece, mask_piece in engine.pieces(x, mask):
                    with engine.autocast():
                        loss = net(x_piece, mask_piece, removed)
                    engine.backward(loss)
                loss = engine.update()
                engine.log(task, loss=round(loss, 6), lr=lr)

        if rank() == 0:
            save_weights(run.dir / "weights.safetensors", model.state_dict())
        engine.finish()
    return run
