"""Dual-modal masked pre-training: each step is one modality, the steps of both are shuffled."""
from pathlib import Path

import torch

from ..config import Pretrain
from ..data.dataset import sample_seed, to_model
from ..data.transforms import normalise
from ..models import random_mask, removed_tokens
from .engine import Engine
from .runs import Run, build, locate, samples_of, tables
from .setup import broadcast, cosine, optimizer_for, pick_device, rank, set_lr


def pretrain(cfg: Pretrain, runs: str | Path = "runs") -> Run:
    """Pre-train, or find the finished run of the same configuration and data, or continue one.

    Source: `docs/method.md`, section 4. Differs: bf16 instead of fp16, so no loss scaling.
    """
    device = pick_device(cfg.deterministic)
    rows = tables(cfg)
    run = locate(cfg, runs, rows)
    if broadcast(run.done):
        return run
    with Engine(run, cfg, device) as engine:                     # lock, signals, checkpoint, log
        torch.manual_seed(cfg.seed)
        data = {task: samples_of(cfg, task, table, "train") for task, table in rows.items()}
        model = build(cfg).to(device).train()
        optimizer = optimizer_for(model, cfg.betas, cfg.weight_decay)
        net = engine.start(model, optimizer, data)
        peak, warmup = cfg.lr * cfg.image_batch_size / 512, round(cfg.warmup_ratio * engine.steps)
        ratio = {"image": cfg.image_mask_ratio, "video": cfg.video_mask_ratio}
        tokens = model.encoder.num_tokens                        # L by task

        for epoch in engine.epochs():
            for batch in engine.batches(epoch):
                task = batch["task"]
                clip = batch["clip"].to(device, non_blocking=True)
                x = normalise(to_model(clip, task))              # [B, 3, (T,) H, W]
                draw = torch.Generator().manual_seed(sample_seed(cfg.seed, engine.step, 31, rank()))
                mask = random_mask(len(x), tokens[task], ratio[task], draw, device)
                removed = removed_tokens(tokens[task], ratio[task])    # mask [B, L], True = removed
                lr = set_lr(optimizer, cosine(engine.step, engine.steps, warmup, peak))
                for x_piece, mask_piece in engine.pieces(x, mask):
                    with torch.autocast(device.type, torch.bfloat16, enabled=cfg.amp):
                        loss = net(x_piece, mask_piece, removed)
                    engine.backward(loss)
                loss = engine.update()
                engine.log(task, loss=round(loss, 6), lr=lr)

        engine.finish(model.state_dict())
    return run
