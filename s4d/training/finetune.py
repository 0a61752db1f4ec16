"""Joint fine-tuning on photos and clips; the same loop trains every method of the comparison."""
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..config import Finetune, Pretrain
from ..data.dataset import Samples, to_model
from ..data.transforms import normalise
from ..models import encoder_from
from .engine import Engine
from .evaluate import predict, war_uar
from .pretrain import pretrain
from .runs import Run, build, locate, samples_of, tables
from .setup import broadcast, cosine, optimizer_for, pick_device, set_lr


def start_model(cfg: Finetune, runs: str | Path) -> nn.Module:
    """Return the model at step 0: fresh, or with a pre-trained encoder."""
    model = build(cfg)
    if isinstance(cfg.init, Pretrain):
        encoder_from(pretrain(cfg.init, runs).load(), model)
    elif cfg.init is not None:
        encoder_from(cfg.init, model)
    return model


def mixer(cfg: Finetune, num_classes: int):
    """Return MixUp or CutMix of a batch, a function (x, y) -> (x, y `[B, K]`), or None.

    torchvision's cut the last two axes, as a clip needs; timm's slice a clip's time and height.
    """
    kinds = ((v2.MixUp, cfg.mixup), (v2.CutMix, cfg.cutmix))
    choices = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]
    if not choices:
        return None
    choose = v2.RandomChoice(choices)

    def mix(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = choose(tv_tensors.Video(x) if x.ndim == 5 else x, y)    # five axes: as a Video
        return x.as_subclass(torch.Tensor), y
    return mix


def predict_all(cfg: Finetune, model: nn.Module, data: list[Samples], crops: int) -> tuple:
    """Return predictions, and {path: cause} of unreadable samples."""
    found = [predict(model, samples, crops, num_workers=cfg.num_workers) for samples in data]
    unreadable = {path: cause for _, broken, _ in found for path, cause in broken.items()}
    return pd.concat([table for table, *_ in found], ignore_index=True), unreadable


def scores_of(cfg: Finetune, table: pd.DataFrame, split: str) -> dict[str, float]:
    """Return `{task}_war` and `{task}_uar` of the trained tasks on a split."""
    scores = {}
    for task in cfg.tasks:
        rows = table[(table.task == task) & (table.split == split)]
        war, uar = war_uar(rows.label, rows.predicted)
        scores |= {f"{task}_war": round(war, 6), f"{task}_uar": round(uar, 6)}
    return scores


def finetune(cfg: Finetune, runs: str | Path = "runs") -> Run:
    """Fine-tune, or find the finished run of the same configuration and data, or continue one.

    The weights kept are those of the epoch with the best mean validation WAR over the trained
    tasks. The test split is read once, after training (with `test_each_epoch` also before, but
    nothing depends on it), for BOTH tasks: a head never trained gives the zero-shot row.

    Source: `docs/method.md`, sections 5 and 6. Differs: the best epoch is chosen on validation,
        not on test.
    """
    device = pick_device(cfg.deterministic)
    rows = tables(cfg)
    run = locate(cfg, runs, rows)
    if broadcast(run.done):
        return run
    with Engine(run, cfg, device) as engine:                     # lock, signals, checkpoint, log
        train = {task: samples_of(cfg, task, rows[task], "train") for task in cfg.tasks}
        val = [samples_of(cfg, task, rows[task], "val") for task in cfg.tasks]
        held_out = [samples_of(cfg, task, table, split) for task, table in rows.items()
                    for split in ("val", "test") if (table.split == split).any()]
        mix = {task: mixer(cfg, getattr(cfg, task).num_classes) for task in cfg.tasks}
        torch.manual_seed(cfg.seed)
        model = start_model(cfg, runs)
        torch.manual_seed(cfg.seed + 1)        # the same draws if a pre-training was made or found
        model = model.to(device).train()
        optimizer = optimizer_for(model, cfg.betas, cfg.weight_decay, cfg.layer_decay)
        net = engine.start(model, optimizer, train)
        # lr is for 8 clips a step, min_lr for 256 samples (docs/method.md, section 5)
        peak, warmup = cfg.lr * cfg.video_batch_size / 8, round(cfg.warmup_ratio * engine.steps)
        low = cfg.min_lr * (cfg.video_batch_size + cfg.image_batch_size) / 256
        best = engine.best                                       # saved in checkpoints too

        for epoch in engine.epochs():
            for batch in engine.batches(epoch):
                task = batch["task"]
                clip = batch["clip"].to(device, non_blocking=True)
                x = normalise(to_model(clip, task))              # [B, 3, (T,) H, W]
                y = batch["label"].to(device, non_blocking=True)           # [B]
                if mix[task] is not None:
                    x, y = mix[task](x, y)                       # y [B, K]
                lr = set_lr(optimizer, cosine(engine.step, engine.steps, warmup, peak, low))
                for x_piece, y_piece in engine.pieces(x, y):
                    with torch.autocast(device.type, torch.bfloat16, enabled=cfg.amp):
                        logits = net(x_piece)                    # [B, K]
                    loss = cross_entropy(logits.float(), y_piece,
                                         label_smoothing=cfg.label_smoothing)
                    engine.backward(loss + cfg.aux_loss_weight * model.balance_loss(), loss)
                loss = engine.update(cfg.clip_grad)
                engine.log(task, loss=round(loss, 6), lr=lr)

            with engine.interruptible():                         # a signal need not wait
                predictions, _ = predict_all(cfg, engine.eval_model, val, crops=1)
                if cfg.test_each_epoch:
                    tested, _ = predict_all(cfg, engine.eval_model, held_out, cfg.test_crops)
            model.train()
            if cfg.test_each_epoch:
                engine.log("test", **scores_of(cfg, tested, "test"))
            scores = scores_of(cfg, predictions, "val")
            engine.log("val", **scores)
            score = sum(scores[f"{task}_war"] for task in cfg.tasks) / len(cfg.tasks)
            if score > best.get("score", -1.0):
                state = engine.eval_model.state_dict()
                weights = {k: v.detach().cpu().clone() for k, v in state.items()}
                best.update(score=score, weights=weights)

        model.load_state_dict(best["weights"])
        with engine.interruptible():
            predictions, missing = predict_all(cfg, model, held_out, cfg.test_crops)
        engine.finish(best["weights"], predictions, best_validation=best["score"],
                      missing_in_test=missing)
    return run
