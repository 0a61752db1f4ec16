"""Joint fine-tuning on photos and clips; the same loop trains every method of the comparison."""
from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..config import ConfigError, Finetune, Pretrain
from ..data import DatasetError, fingerprint, index_of, split_validation
from ..data.dataset import Samples, epoch_plan, to_model
from ..data.transforms import normalise, train_transform
from ..models import CheckpointError, encoder_from
from .engine import Engine
from .evaluate import predict, war_uar
from .optim import cosine, optimizer_for, seed_all, set_lr
from .parallel import first, of_first, pick_device, rank
from .pretrain import locate as locate_pretrain
from .pretrain import pretrain
from .runs import Run, build, run_dir, save_weights, write


def sources(cfg: Finetune) -> dict:
    """Return the source of each task that is trained or tested."""
    named = {"image": cfg.image, "video": cfg.video}
    for task in cfg.tasks:
        if named[task] is None:
            raise ConfigError(f"task {task!r} is trained but has no source: give `{task}` a "
                              "dataset")
    return {task: source for task, source in named.items() if source is not None}


def tables(cfg: Finetune) -> dict[str, pd.DataFrame]:
    """Return the indexed rows of each task; where a dataset has no val split, one is taken from
    the training rows."""
    out = {}
    for task, source in sources(cfg).items():
        table = index_of(source, task, source.num_classes)
        if table.label.isna().any():
            raise DatasetError(f"{source.name} in {source.root} has no labels: fine-tuning needs "
                               "them, pre-training does not")
        if not (table.split == "val").any():
            table = split_validation(table, cfg.val_fraction, seed=0)  # for all seeds and methods
        if task in cfg.tasks and not (table.split == "train").any():
            raise DatasetError(f"{source.name} in {source.root} has no training samples: "
                               "fine-tuning reads the train split")
        out[task] = table.reset_index(drop=True)
    return out


def locate(cfg: Finetune, runs: str | Path = "runs", rows: dict | None = None) -> Run:
    """Return the run of this configuration on the data, and from the starting weights, that lie
    there now, trained or not.

    Args:
        rows: result of `tables`, when it is at hand.
    Raises:
        CheckpointError: when the checkpoint to start from cannot be read.
    """
    marks = [fingerprint(table, sources(cfg)[task].root)
             for task, table in (rows or tables(cfg)).items()]
    if isinstance(cfg.init, Pretrain):       # its data may be others than those of fine-tuning
        name = locate_pretrain(cfg.init, runs).dir.name
        marks.append(hashlib.sha256(name.encode()).hexdigest())
    elif cfg.init is not None:
        try:
            with open(cfg.init, "rb") as f:
                marks.append(hashlib.file_digest(f, "sha256").hexdigest())
        except OSError as error:
            raise CheckpointError(f"cannot read checkpoint {cfg.init}: {error.strerror}; give the "
                                  "path of a .pth, .pt or .safetensors file") from error
    return Run(run_dir(cfg, runs, marks))


def augmentation(cfg: Finetune, task: str):
    """Return the transform of training samples of a task."""
    photo = task == "image" and cfg.image_randaugment is not None
    field = "image_randaugment" if photo else "randaugment"
    try:
        return train_transform(cfg.img_size, cfg.crop_scale, getattr(cfg, field),
                               cfg.random_erasing)
    except ValueError as error:
        raise ConfigError(f"Finetune.{field} cannot be used: {error}") from error


def part(cfg: Finetune, task: str, table: pd.DataFrame, split: str) -> Samples:
    """Return the samples of one task and split."""
    source = sources(cfg)[task]
    training = split == "train"
    return Samples(table[table.split == split], source.root, task, cfg.img_size, cfg.num_frames,
                 cfg.sampling_rate, num_classes=source.num_classes, cache=cfg.cache,
                 transform=augmentation(cfg, task) if training else None,
                 test_segments=0 if training else cfg.test_segments, crop_box=source.crop_box,
                 short_side=source.short_side)


def plan(cfg: Finetune, data: dict[str, Samples], epoch: int) -> list:
    """Return the batches of an epoch, as keys of samples."""
    return epoch_plan(data, {"image": cfg.image_batch_size, "video": cfg.video_batch_size},
                      {"image": cfg.image_epoch_fraction, "video": 1.0},
                      {"image": cfg.balanced_sampling, "video": False}, cfg.seed, epoch,
                      {"image": cfg.image_fraction, "video": cfg.video_fraction})


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


def validate(cfg: Finetune, model: nn.Module, data: dict[str, Samples], device) -> dict[str, float]:
    """Return WAR and UAR on the validation split of every trained task."""
    scores = {}
    for task, samples in data.items():
        table, _ = predict(model, samples, sources(cfg)[task].num_classes,
                           workers=cfg.num_workers, device=device)
        scores |= named_scores(task, table)
    return scores


def named_scores(task: str, table: pd.DataFrame) -> dict[str, float]:
    war, uar = war_uar(table.label, table.predicted)
    return {f"{task}_war": round(war, 6), f"{task}_uar": round(uar, 6)}


def test(cfg: Finetune, model: nn.Module, rows: dict, device) -> tuple[pd.DataFrame, dict]:
    """Predict the val and test samples of BOTH tasks: a head that was never trained gives the
    zero-shot row. Return the predictions, and {path: cause} of unreadable samples."""
    found, unreadable = [], {}
    for task, table in rows.items():
        for split in ("val", "test"):
            if (table.split == split).any():
                predictions, broken = predict(model, part(cfg, task, table, split),
                                              sources(cfg)[task].num_classes, cfg.test_crops,
                                              workers=cfg.num_workers, device=device)
                found.append(predictions)
                unreadable.update(broken)
    return pd.concat(found, ignore_index=True), unreadable


def test_epoch(cfg: Finetune, model: nn.Module, rows: dict, device, run: Run,
               best: dict[str, float]) -> dict[str, float]:
    """Test after an epoch, for reports only: write predictions_last.csv, and
    predictions_best_test.csv with each task's epoch that is best on TEST, as the field chooses.

    Args:
        best: test WAR by task; updated in place.
    Returns:
        `{task}_war` and `{task}_uar` on test.
    """
    last, _ = test(cfg, model, rows, device)
    path, scores = run.dir / "predictions_best_test.csv", {}
    kept = last
    if best and path.is_file():
        kept = pd.read_csv(path, dtype={"subject": str, "path": str})
    for task in cfg.tasks:
        scores |= named_scores(task, last[(last.task == task) & (last.split == "test")])
        if scores[f"{task}_war"] > best.get(task, -1.0):
            best[task] = scores[f"{task}_war"]
            parts = [kept[kept.task != task], last[last.task == task]]
            kept = pd.concat(parts, ignore_index=True)
    save_table(run.dir / "predictions_last.csv", last)
    save_table(path, kept)
    return scores


def save_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table, from process 0."""
    if rank() == 0:
        write(path, lambda p: table.to_csv(p, index=False))


def finetune(cfg: Finetune, runs: str | Path = "runs") -> Run:
    """Fine-tune, or find the finished run of the same configuration and data, or continue one.

    The weights kept are those of the epoch with the best mean validation WAR over the trained
    tasks. The test split is read once, after training (with `test_each_epoch` also before, but
    nothing depends on it). Under torchrun every process calls it.

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
            val = {task: part(cfg, task, rows[task], "val") for task in cfg.tasks}
        seed_all(cfg.seed)
        model = start_model(cfg, runs)
        seed_all(cfg.seed + 1)      # the same draws whether a pre-training was found or just made
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
                scores = validate(cfg, engine.eval_model, val, device)
                if cfg.test_each_epoch:
                    best_test = dict(best.get("test", {}))
                    tested = test_epoch(cfg, engine.eval_model, rows, device, run, best_test)
            model.train()
            if cfg.test_each_epoch:
                engine.log("test", **tested)
                best["test"] = best_test
            engine.log("val", **scores)
            score = sum(scores[f"{task}_war"] for task in cfg.tasks) / len(cfg.tasks)
            if score > best.get("score", -1.0):
                state = engine.eval_model.state_dict()
                weights = {k: v.detach().cpu().clone() for k, v in state.items()}
                best.update(score=score, weights=weights)

        model.load_state_dict(best["weights"])
        with engine.at_once():
            predictions, missing = test(cfg, model, rows, device)
        if rank() == 0:
            save_weights(run.dir / "weights.safetensors", best["weights"])
        save_table(run.dir / "predictions.csv", predictions)
        engine.finish(best_validation=best["score"], missing_in_test=missing)
    return run
