"""Joint fine-tuning on photos and clips; the same loop trains every method of the comparison."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torchvision import tv_tensors
from torchvision.transforms import v2

from .. import config as configs
from ..config import ConfigError, Finetune, Pretrain
from ..data import DatasetError, fingerprint, index_of, split_validation
from ..data.dataset import Joint, Samples, epoch_plan, to_model
from ..data.transforms import normalise, train_transform
from ..models import CheckpointError, encoder_from
from .evaluate import predict, war_uar
from .loop import Loop, blank, cosine, optimizer_for, pick_device, seed_all, set_lr
from .pretrain import locate as locate_pretrain
from .pretrain import pretrain
from .ranks import first, of_first, rank
from .runs import Run, build, run_dir, save_weights, write, write_text
from .signals import Attended


def sources(cfg: Finetune) -> dict:
    """Source of each task that is trained or tested."""
    named = {"image": cfg.image, "video": cfg.video}
    for task in cfg.tasks:
        if named[task] is None:
            raise ConfigError(f"task {task!r} is trained but has no source: give `{task}` a dataset")
    return {task: source for task, source in named.items() if source is not None}


def tables(cfg: Finetune) -> dict[str, pd.DataFrame]:
    """Indexed rows of each task, with a validation part taken from the training rows where the dataset has none."""
    out = {}
    for task, source in sources(cfg).items():
        table = index_of(source, task, source.num_classes)
        if table.label.isna().any():
            raise DatasetError(f"{source.name} in {source.root} has no labels: fine-tuning needs them, pre-training does not")
        if not (table.split == "val").any():
            table = split_validation(table, cfg.val_fraction, seed=0)     # one split for all seeds and methods
        if task in cfg.tasks and not (table.split == "train").any():
            raise DatasetError(f"{source.name} in {source.root} has no training samples: fine-tuning reads the train split")
        out[task] = table.reset_index(drop=True)
    return out


def locate(cfg: Finetune, runs: str | Path = "runs", rows: dict[str, pd.DataFrame] | None = None) -> Run:
    """The run of this configuration on the data, and from the starting weights, that lie there now, whether or not it was trained.

    Args:
        rows: result of `tables`, when it is at hand.
    Raises:
        CheckpointError: when the checkpoint to start from cannot be read.
    """
    marks = [fingerprint(t, sources(cfg)[task].root) for task, t in (rows or tables(cfg)).items()]
    if isinstance(cfg.init, Pretrain):       # its data may be others than those of fine-tuning
        marks.append(hashlib.sha256(locate_pretrain(cfg.init, runs).dir.name.encode()).hexdigest())
    elif cfg.init is not None:
        try:
            with open(cfg.init, "rb") as f:
                marks.append(hashlib.file_digest(f, "sha256").hexdigest())
        except OSError as error:
            raise CheckpointError(f"cannot read checkpoint {cfg.init}: {error.strerror}; give the path of a .pth, .pt or .safetensors "
                                  "file") from error
    return Run(run_dir(cfg, runs, marks))


def augmentation(cfg: Finetune, task: str):
    """The transform of training samples of a task."""
    field = "image_randaugment" if task == "image" and cfg.image_randaugment is not None else "randaugment"
    try:
        return train_transform(cfg.img_size, cfg.crop_scale, getattr(cfg, field), cfg.random_erasing)
    except ValueError as error:
        raise ConfigError(f"Finetune.{field} cannot be used: {error}") from error


def part(cfg: Finetune, task: str, table: pd.DataFrame, split: str) -> Samples:
    """Samples of one task and split."""
    source = sources(cfg)[task]
    training = split == "train"
    return Samples(table[table.split == split], source.root, task, cfg.img_size, cfg.num_frames, cfg.sampling_rate, num_classes=source.num_classes,
                 transform=augmentation(cfg, task) if training else None, test_segments=0 if training else cfg.test_segments, cache=cfg.cache,
                 crop_box=source.crop_box, short_side=source.short_side)


def plan(cfg: Finetune, data: dict[str, Samples], epoch: int):
    return epoch_plan(data, {"image": cfg.image_batch_size, "video": cfg.video_batch_size}, {"image": cfg.image_epoch_fraction, "video": 1.0},
                      {"image": cfg.balanced_sampling, "video": False}, cfg.seed, epoch, {"image": cfg.image_fraction, "video": cfg.video_fraction})


def start_model(cfg: Finetune, runs: str | Path) -> torch.nn.Module:
    """The model at step 0: fresh, or with a pre-trained encoder."""
    model = build(cfg)
    if isinstance(cfg.init, Pretrain):
        encoder_from(pretrain(cfg.init, runs).load(), model)
    elif cfg.init is not None:
        encoder_from(cfg.init, model)
    return model


def mixer(cfg: Finetune, classes: int):
    """MixUp or CutMix on whole batches, a function (x, label) -> (x, label `[B, K]`), or None.

    torchvision's cut the last two axes, as a clip needs; timm's slice a clip's time and height. They take five axes for a
    video only.
    """
    choices = [v2.MixUp(alpha=cfg.mixup, num_classes=classes)] if cfg.mixup else []
    choices += [v2.CutMix(alpha=cfg.cutmix, num_classes=classes)] if cfg.cutmix else []
    if not choices:
        return None
    choose = v2.RandomChoice(choices)

    def mix(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = choose(tv_tensors.Video(x) if x.ndim == 5 else x, y)
        return x.as_subclass(torch.Tensor), y
    return mix


def validate(cfg: Finetune, model: torch.nn.Module, held: dict[str, Samples], device) -> dict[str, float]:
    """WAR and UAR on the validation part of every trained task."""
    out = {}
    for task, data in held.items():
        table, _ = predict(model, data, sources(cfg)[task].num_classes, workers=cfg.num_workers, device=device)
        out[f"{task}_war"], out[f"{task}_uar"] = (round(v, 6) for v in war_uar(table.label, table.predicted))
    return out


def test(cfg: Finetune, model: torch.nn.Module, rows: dict[str, pd.DataFrame], device) -> tuple[pd.DataFrame, dict]:
    """Predictions on validation and test samples of BOTH tasks: a head that was never trained gives the zero-shot row."""
    found, bad = [], {}
    for task, table in rows.items():
        for split in ("val", "test"):
            if (table.split == split).any():
                predictions, broken = predict(model, part(cfg, task, table, split), sources(cfg)[task].num_classes, cfg.test_crops,
                                              workers=cfg.num_workers, device=device)
                found.append(predictions)
                bad.update(broken)
    return pd.concat(found, ignore_index=True), bad


def watch(cfg: Finetune, model: torch.nn.Module, rows: dict[str, pd.DataFrame], device, run: Run,
          best: dict[str, float]) -> dict[str, float]:
    """Tests after an epoch, for reports only: predictions_last.csv, and predictions_best_test.csv with the epoch of each task that is
    best on TEST, which is how the field chooses.

    Returns:
        `{task}_war` and `{task}_uar` on test; `best`, WAR by task, is updated in place.
    """
    last, _ = test(cfg, model, rows, device)
    path, scores = run.dir / "predictions_best_test.csv", {}
    kept = pd.read_csv(path, dtype={"subject": str, "path": str}) if best and path.is_file() else last
    for task in cfg.tasks:
        part = last[(last.task == task) & (last.split == "test")]
        scores[f"{task}_war"], scores[f"{task}_uar"] = (round(v, 6) for v in war_uar(part.label, part.predicted))
        if scores[f"{task}_war"] > best.get(task, -1.0):
            best[task] = scores[f"{task}_war"]
            kept = pd.concat([kept[kept.task != task], last[last.task == task]], ignore_index=True)
    for name, table in (("predictions_last.csv", last), ("predictions_best_test.csv", kept)) if rank() == 0 else ():
        write(run.dir / name, lambda p, table=table: table.to_csv(p, index=False))
    return scores


def finetune(cfg: Finetune, runs: str | Path = "runs") -> Run:
    """Fine-tunes, or finds the finished run of the same configuration and data, or continues an interrupted one.

    The weights kept are those of the epoch with the best mean validation WAR over the trained tasks; the test split is read
    once, after training (with `each_epoch` also before, but nothing depends on it). An epoch is all video batches plus
    `image_share` of the image batches; a method that trains one task takes the same number of that task's steps as a method that
    trains both. Under torchrun every process calls it; the run is the same for any number of them.

    Returns:
        the `Run`; metrics have rows per step (loss) and per epoch (validation scores).
    Raises:
        RunError, DatasetError, LabelError, ConfigError, CheckpointError: one sentence each.
    Source: METHOD sections 5 and 6. Differs: the best epoch is chosen on validation, not on test.
    """
    device = pick_device(cfg.deterministic)
    for task in cfg.tasks:
        augmentation(cfg, task)     # says what is wrong before anything is read or written
    rows = tables(cfg)
    run = locate(cfg, runs, rows)
    if of_first(run.done):
        return run
    with Attended(run) as attended:
        fit(cfg, runs, run, rows, device, attended)
    return run


def prepare(cfg: Finetune, runs: str | Path, run: Run, rows: dict[str, pd.DataFrame], device: torch.device) -> tuple:
    """Training and validation samples by task, the model at step 0, its optimizer."""
    if rank() == 0:
        write_text(run.dir / "config.json", json.dumps(configs.to_dict(cfg), indent=1))
    with first():
        data, held = ({task: part(cfg, task, rows[task], split) for task in cfg.tasks} for split in ("train", "val"))
    seed_all(cfg.seed)
    model = start_model(cfg, runs)
    seed_all(cfg.seed + 1)          # the same draws whether or not the encoder was pre-trained in this call
    model = model.to(device).train()
    return data, held, model, optimizer_for(model, cfg.betas, cfg.weight_decay, cfg.layer_decay)


def fit(cfg: Finetune, runs: str | Path, run: Run, rows: dict[str, pd.DataFrame], device: torch.device, attended: Attended) -> None:
    """The loop of fine-tuning, from step 0 or from the last state, to the finished run."""
    data, held, model, optimizer = prepare(cfg, runs, run, rows, device)
    mix = {task: mixer(cfg, sources(cfg)[task].num_classes) for task in cfg.tasks}
    per_epoch = len(plan(cfg, data, 0))
    steps = max(1, round(cfg.epochs * per_epoch))
    peak, low = cfg.lr * cfg.video_batch_size / 8, cfg.min_lr * (cfg.video_batch_size + cfg.image_batch_size) / 256
    attended.loop = loop = Loop(run, cfg, "fine-tuning", steps, sum(map(len, data.values())), model, optimizer, device,
                                lambda task, n: (blank(cfg, task, n, device),), attended.signals)
    for task in cfg.tasks:
        loop.watch.classes(task, data[task].labels, sources(cfg)[task].num_classes, cfg.balanced_sampling and task == "image")
    joint, value, split, more = Joint(data), None, loop.split, loop.more

    while loop.scored < steps:
        epoch, inside = divmod(loop.step, per_epoch)
        if loop.step > loop.scored and (inside == 0 and loop.step or loop.step == steps):
            with attended.signals.at_once():
                scores = validate(cfg, loop.best_model(), held, device)
                watched = watch(cfg, loop.best_model(), rows, device, run, more.setdefault("best_test", {})) if cfg.test_each_epoch else None
            model.train()
            if watched:
                loop.note(step=loop.step, epoch=round(loop.step / per_epoch, 4), modality="test", **watched)
            score = sum(scores[f"{t}_war"] for t in cfg.tasks) / len(cfg.tasks)
            if score > more.get("best", -1.0):
                more.update(best=score, kept={k: v.detach().cpu().clone() for k, v in loop.best_model().state_dict().items()})
            loop.scored_now(round(loop.step / per_epoch, 4), scores)
            continue
        for batch in loop.load(joint, plan(cfg, data, epoch)[inside: inside + steps - loop.step]):
            task = batch["task"]
            if split.total:
                lr = cosine(loop.step, steps, round(cfg.warmup_ratio * steps), peak, low)
                set_lr(optimizer, lr)
                x = normalise(to_model(batch["clip"].to(device, non_blocking=True), task))   # [B, 3, (T,) H, W]
                y = batch["label"].to(device, non_blocking=True)                              # [B], or [B, K] when mixed
                if mix[task] is not None:
                    x, y = split.mixed(mix[task], x, y)
                for x, y in loop.pieces(x, y):
                    with loop.autocast():
                        logits = split.net(x)
                    loss = cross_entropy(logits.float(), y, label_smoothing=cfg.label_smoothing)
                    loop.backward(loss + cfg.aux_loss_weight * split.balance_loss(), loss)
                value, logged = loop.update(cfg.clip_grad)
                loop.note(step=loop.step, epoch=round(loop.step / per_epoch, 4), modality=task, loss=round(logged, 6), lr=lr)
            loop.advance(task, value)
    model.load_state_dict(more["kept"])
    with attended.signals.at_once():
        predictions, missing = test(cfg, model, rows, device)
    if rank() == 0:
        save_weights(run.dir / "weights.safetensors", more["kept"])
        write(run.dir / "predictions.csv", lambda p: predictions.to_csv(p, index=False))
    loop.finish("finetune", device, best_validation=more["best"], missing_in_test=missing)
