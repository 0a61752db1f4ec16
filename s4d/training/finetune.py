"""Joint fine-tuning on photos and clips; the same loop trains every method of the comparison."""
from __future__ import annotations

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
from .inputs import locate, part, plan, sources, tables
from .optim import cosine, optimizer_for, set_lr
from .parallel import first, of_first, pick_device, rank
from .pretrain import pretrain
from .runs import Run, build, write


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
    choices = [v2.MixUp(alpha=cfg.mixup, num_classes=num_classes)] if cfg.mixup else []
    choices += [v2.CutMix(alpha=cfg.cutmix, num_classes=num_classes)] if cfg.cutmix else []
    if not choices:
        return None
    choose = v2.RandomChoice(choices)

    def mix(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = choose(tv_tensors.Video(x) if x.ndim == 5 else x, y)    # five axes: a video only
        return x.as_subclass(torch.Tensor), y
    return mix


def predict_all(cfg: Finetune, model: nn.Module, data: list[Samples], crops: int,
                device: torch.device) -> tuple[pd.DataFrame, dict]:
    """Return predictions, and {path: cause} of unreadable samples."""
    found, unreadable = [], {}
    for samples in data:
        table, broken = predict(model, samples, getattr(cfg, samples.task).num_classes, crops,
                                workers=cfg.num_workers, device=device)
        found.append(table)
        unreadable |= broken
    return pd.concat(found, ignore_index=True), unreadable


def scores_of(cfg: Finetune, table: pd.DataFrame) -> dict[str, float]:
    """Return `{task}_war` and `{task}_uar` of the trained tasks."""
    scores = {}
    for task in cfg.tasks:
        rows = table[table.task == task]
        war, uar = war_uar(rows.label, rows.predicted)
        scores |= {f"{task}_war": round(war, 6), f"{task}_uar": round(uar, 6)}
    return scores


def keep_best_on_test(cfg: Finetune, run: Run, last: pd.DataFrame, scores: dict,
                      best: dict[str, float]) -> dict[str, float]:
    """Write predictions_last.csv, and predictions_best_test.csv with each task's epoch that is
    best on TEST, as the field chooses; for reports only.

    Args:
        last, scores: this epoch's predictions, and what they score on test.
        best: test WAR by task of the epochs before.
    Returns:
        `best` with this epoch.
    """
    path, kept = run.dir / "predictions_best_test.csv", last
    if best and path.is_file():
        kept = pd.read_csv(path, dtype={"subject": str, "path": str})
    better = [task for task in cfg.tasks if scores[f"{task}_war"] > best.get(task, -1.0)]
    old, new = kept[~kept.task.isin(better)], last[last.task.isin(better)]
    kept = pd.concat([old, new], ignore_index=True)
    if rank() == 0:
        write(run.dir / "predictions_last.csv", last.to_csv(index=False))
        write(path, kept.to_csv(index=False))
    return best | {task: scores[f"{task}_war"] for task in better}


def finetune(cfg: Finetune, runs: str | Path = "runs") -> Run:
    """Fine-tune, or find the finished run of the same configuration and data, or continue one.

    The weights kept are those of the epoch with the best mean validation WAR over the trained
    tasks. The test split is read once, after training (with `test_each_epoch` also before, but
    nothing depends on it), for BOTH tasks: a head never trained gives the zero-shot row.

    Returns:
        the `Run`; metrics have rows per step (loss) and per epoch (validation scores).
    Raises:
        RunError, DatasetError, LabelError, ConfigError, CheckpointError: one sentence each.
    Source: `docs/method.md`, sections 5 and 6. Differs: the best epoch is chosen on validation,
        not on test.
    """
    device = pick_device(cfg.deterministic)
    rows = tables(cfg)
    run = locate(cfg, runs, rows)
    if of_first(run.done):
        return run
    with Engine(run, cfg, device) as engine:                     # lock, signals, checkpoint, log
        with first():
            train = {task: part(cfg, task, rows[task], "train") for task in cfg.tasks}
            val = [part(cfg, task, rows[task], "val") for task in cfg.tasks]
            held_out = [part(cfg, task, table, split) for task, table in rows.items()
                        for split in ("val", "test") if (table.split == split).any()]
        torch.manual_seed(cfg.seed)
        model = start_model(cfg, runs)
        torch.manual_seed(cfg.seed + 1)        # the same draws if a pre-training was made or found
        model = model.to(device).train()
        optimizer = optimizer_for(model, cfg.betas, cfg.weight_decay, cfg.layer_decay)
        net = engine.start("fine-tuning", model, optimizer, train, len(plan(cfg, train, 0)))
        best, mix = engine.best, {}                              # best: saved in checkpoints too
        for task in cfg.tasks:
            mix[task] = mixer(cfg, sources(cfg)[task].num_classes)
            engine.guard.classes(task, train[task].labels, sources(cfg)[task].num_classes)
        peak, warmup = cfg.lr * cfg.video_batch_size / 8, round(cfg.warmup_ratio * engine.steps)
        low = cfg.min_lr * (cfg.video_batch_size + cfg.image_batch_size) / 256

        for epoch in engine.epochs():
            for batch in engine.batches(plan(cfg, train, epoch)):
                task = batch["task"]
                clip = batch["clip"].to(device, non_blocking=True)
                x = normalise(to_model(clip, task))              # [B, 3, (T,) H, W]
                y = batch["label"].to(device, non_blocking=True)           # [B]
                if mix[task] is not None:
                    x, y = mix[task](x, y)                       # y [B, K]
                lr = set_lr(optimizer, cosine(engine.step, engine.steps, warmup, peak, low))
                for x_piece, y_piece in engine.pieces(x, y):
                    with engine.autocast():
                        logits = net(x_piece)                    # [B, K]
                    loss = cross_entropy(logits.float(), y_piece,
                                         label_smoothing=cfg.label_smoothing)
                    engine.backward(loss + cfg.aux_loss_weight * model.balance_loss(), loss)
                loss = engine.update(cfg.clip_grad)
                engine.log(task, loss=round(loss, 6), lr=lr)

            with engine.at_once():                               # a signal need not wait
                judged, _ = predict_all(cfg, engine.eval_model, val, 1, device)
                if cfg.test_each_epoch:
                    last, _ = predict_all(cfg, engine.eval_model, held_out, cfg.test_crops, device)
            model.train()
            if cfg.test_each_epoch:
                tested = scores_of(cfg, last[last.split == "test"])
                best["test"] = keep_best_on_test(cfg, run, last, tested, best.get("test", {}))
                engine.log("test", **tested)
            scores = scores_of(cfg, judged)
            engine.log("val", **scores)
            score = sum(scores[f"{task}_war"] for task in cfg.tasks) / len(cfg.tasks)
            if score > best.get("score", -1.0):
                state = engine.eval_model.state_dict()
                weights = {k: v.detach().cpu().clone() for k, v in state.items()}
                best.update(score=score, weights=weights)

        model.load_state_dict(best["weights"])
        with engine.at_once():
            predictions, missing = predict_all(cfg, model, held_out, cfg.test_crops, device)
        engine.finish(best["weights"], predictions, best_validation=best["score"],
                      missing_in_test=missing)
    return run
