"""Training at its smallest: what a run leaves behind, what it warns of, and how it fails."""
import math
import os
import shutil
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import damage, tiny_finetune, tiny_pretrain, write_image, write_video
from faults import CONTEXT, checkpoint, same
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from s4d import training
from s4d.config import ConfigError, Source, update
from s4d.data import DatasetError, read_clip
from s4d.data.transforms import normalise
from s4d.models import CheckpointError, create
from s4d.training import RunError, finetune, locate, predict, pretrain, run_all, train, war_uar
from s4d.training.engine import Engine, progress_bar
from s4d.training.runs import LOCK, Run, samples_of, tables
from s4d.training.setup import Guard, cosine, optimizer_for, set_lr

stage_pretrain = sys.modules["s4d.training.pretrain"]
stage_finetune = sys.modules["s4d.training.finetune"]
SAVED = {"config.json", "metrics.jsonl", "weights.safetensors", "provenance.json", LOCK}


# --- what a run is

def test_a_pretraining_run(mini, tmp_path, monkeypatch, capsys):
    cfg = tiny_pretrain(mini)
    run = pretrain(cfg, tmp_path)
    assert {p.name for p in run.dir.iterdir()} == SAVED and run.done
    assert run.config == cfg and run.dir.name.startswith("pretrain-")
    rows = run.metrics()
    assert rows.step.tolist() == list(range(6))
    assert rows.modality.value_counts().to_dict() == {"image": 3, "video": 3}
    peak = cfg.lr * cfg.image_batch_size / 512
    assert rows.loss.between(0.5, 3).all()
    assert rows.lr.tolist() == pytest.approx([cosine(s, 6, 0, peak) for s in range(6)])
    found = run.provenance
    assert found["steps"] == 6 and found["unreadable"] == {}
    assert 0 <= found["waiting_seconds"] <= found["seconds"]
    monkeypatch.setattr(stage_pretrain, "build", lambda cfg: pytest.fail("trained again"))
    assert train(cfg, tmp_path).dir == run.dir
    assert capsys.readouterr() == ("", "")      # less than a minute, and no terminal


def test_a_finetuning_run(finished, monkeypatch):
    assert {p.name for p in finished.dir.iterdir()} == SAVED | {"predictions.csv"}
    assert set(finished.metrics().modality) == {"image", "video", "val"}
    table = finished.predictions()
    counts = table.groupby(["task", "split"]).size().to_dict()
    assert counts == {(t, s): 7 for t in ("image", "video") for s in ("test", "val")}
    probabilities = table.filter(like="prob_")
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    highest = probabilities.columns[probabilities.to_numpy().argmax(1)]
    assert (highest == "prob_" + table.predicted).all()
    val = table[table.split == "val"].groupby("task")
    wars = [war_uar(rows.label, rows.predicted)[0] for _, rows in val]
    assert finished.metrics().video_war.iloc[-1] == pytest.approx(wars[1], abs=1e-5)
    assert finished.provenance["best_validation"] == pytest.approx(sum(wars) / 2, abs=1e-5)
    assert finished.provenance["missing_in_test"] == {}
    monkeypatch.setattr(stage_finetune, "start_model", lambda *_: pytest.fail("trained again"))
    assert finetune(finished.config, finished.dir.parent).dir == finished.dir


def test_each_step_has_a_mask_of_its_own_with_its_tasks_ratio(mini, tmp_path, monkeypatch):
    masks, random_mask = {"image": [], "video": []}, stage_pretrain.random_mask

    def drawn(n, tokens, *args):
        mask = random_mask(n, tokens, *args)
        masks["image" if tokens == 4 else "video"].append(mask)
        return mask
    monkeypatch.setattr(stage_pretrain, "random_mask", drawn)
    pretrain(tiny_pretrain(mini, image_mask_ratio=0.5, video_mask_ratio=0.75), tmp_path)
    for task, ratio in (("image", 0.5), ("video", 0.75)):
        assert all((m.float().mean(1) == ratio).all() for m in masks[task])
        assert len({m.numpy().tobytes() for m in masks[task]}) == len(masks[task]) == 3


def test_finetuning_starts_from_the_pretrained_encoder(mini, tmp_path):
    pre = pretrain(tiny_pretrain(mini), tmp_path)
    by_config = tiny_finetune(mini, init=tiny_pretrain(mini))
    by_file = tiny_finetune(mini, init=str(pre.dir / "weights.safetensors"))
    stored, weight = load_file(pre.dir / "weights.safetensors"), "blocks.0.mlp.fc1.weight"
    for cfg in (by_config, by_file):
        state = stage_finetune.start_model(cfg, tmp_path).state_dict()
        assert torch.equal(state[weight], stored[f"encoder.{weight}"])
    cfg = update(by_config, tasks=("video",), num_experts=0)
    run = finetune(cfg, tmp_path)
    assert set(run.metrics().modality) == {"video", "val"}
    assert set(run.predictions().task) == {"image", "video"}
    same(run, finetune(cfg, tmp_path / "made"))      # whether the pre-training is found or made


def test_the_epoch_best_on_validation_is_kept(mini, tmp_path, monkeypatch):
    scores, weights, original = iter((0.2, 0.9, 0.5)), [], stage_finetune.predict_all

    def judge(cfg, model, *args, **kwargs):
        weights.append(model.head["image"].weight.detach().clone())
        return original(cfg, model, *args, **kwargs)
    monkeypatch.setattr(stage_finetune, "predict_all", judge)
    monkeypatch.setattr(stage_finetune, "scores_of", lambda *_: dict.fromkeys(
        ("image_war", "image_uar"), next(scores)))
    run = finetune(tiny_finetune(mini, epochs=3, tasks=("image",)), tmp_path)
    kept = run.load().head["image"].weight
    assert [torch.equal(kept, w) for w in weights[:3]] == [False, True, False]
    assert run.provenance["best_validation"] == 0.9


def test_a_runs_folder_follows_everything_it_was_made_from(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    cfg = tiny_finetune(root, init=tiny_pretrain(root))
    elsewhere = tiny_finetune(mini, init=tiny_pretrain(mini))
    assert locate(cfg).dir == locate(elsewhere).dir                # not where the data lie
    fine, pre, plain = (locate(c).dir for c in (cfg, cfg.init, tiny_finetune(root)))
    write_video(root / "voxceleb2/dev/mp4/id00009/v/1.mp4", frames=4)
    assert locate(cfg.init).dir != pre and locate(cfg).dir != fine
    write_image(root / "affectnet/val/fear/009.jpg", 5)
    assert locate(tiny_finetune(root)).dir != plain
    found = set()
    for content in (b"one", b"two"):
        (tmp_path / "c.pth").write_bytes(content)
        found.add(locate(tiny_finetune(root, init=str(tmp_path / "c.pth"))).dir)
    assert len(found) == 2
    with pytest.raises(CheckpointError, match="there is no checkpoint none.pth"):
        locate(tiny_finetune(root, init="none.pth"))
    assert locate(update(cfg, grad_checkpointing=True, num_workers=1)).dir == locate(cfg).dir


def test_missing_sources_and_splits_are_sentences(mini, tmp_path):
    for split in ("val", "test"):
        write_image(tmp_path / "a" / split / "fear/0.jpg")
    fine, pre = tiny_finetune(mini), tiny_pretrain(mini)
    untrained = Source("affectnet", str(tmp_path / "a"))
    for cfg, changes, kind, said in (
            (fine, dict(image=None), ConfigError, "task 'image' is trained but has no source"),
            (pre, dict(image=None, video=None), ConfigError, "both sources are None"),
            (fine, dict(image=fine.video), DatasetError, "dfew holds videos and was named as the"),
            (fine, dict(video=pre.video), DatasetError, "voxceleb2 in .* has no labels"),
            (fine, dict(image=untrained), DatasetError, "no training samples: fine-tuning reads"),
            (pre, dict(image=untrained), DatasetError, "no training samples: pre-training reads")):
        with pytest.raises(kind, match=said):
            train(update(cfg, **changes), tmp_path)


@pytest.mark.parametrize("name, read", [
    ("weights.safetensors", Run.load), ("predictions.csv", Run.predictions),
    ("metrics.jsonl", Run.metrics), ("config.json", lambda run: run.config),
    ("provenance.json", lambda run: run.provenance)])
def test_damaged_runs_are_sentences(finished, tmp_path, name, read):
    run = Run(Path(shutil.copytree(finished.dir, tmp_path / "run")))
    path = run.dir / name
    if name != "predictions.csv":                          # half a table is a table
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
        with pytest.raises(RunError, match=f"cannot read .*{name} .*missing or damaged"):
            read(Run(run.dir))
    path.unlink()
    with pytest.raises(RunError, match=f"cannot read .*{name} .No such file.*it is missing"):
        read(Run(run.dir))


# --- unreadable media

@pytest.mark.parametrize("cache", [False, True])
def test_a_broken_test_clip_is_named_and_counts_as_an_error(mini, tmp_path, cache):
    root, clip = Path(shutil.copytree(mini, tmp_path / "data")), "Clip/original/00015.mp4"
    damage(root / "dfew" / clip, 0.5, 0.6)                 # the first test clip
    run = finetune(tiny_finetune(root, cache=cache, test_segments=2), tmp_path)
    missing = run.provenance["missing_in_test"]
    assert list(missing) == [clip] and "damaged" in missing[clip]
    rows = run.predictions().query("task == 'video' and split == 'test'").set_index("path")
    assert len(rows) == 7 and rows.loc[clip].filter(regex="predicted|prob_").isna().all()
    right = (rows.label == rows.predicted).sum()
    assert war_uar(rows.label, rows.predicted) == pytest.approx((right / 7, right / 7))


def test_war_and_uar():
    expected = (0.75, pytest.approx((2 / 3 + 1) / 2))
    assert war_uar(["a", "a", "a", "b"], ["a", "a", "b", "b"]) == expected
    assert war_uar(["a", "b"], [None, "b"]) == (0.5, 0.5)
    assert war_uar(["a", "b"], [float("nan")] * 2) == (0, 0)
    assert war_uar(["a", "a"], ["a", "c"]) == (0.5, 0.5)   # a class without samples has no recall


def test_too_many_broken_training_samples_stop_the_run(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    (root / "affectnet/train/fear/000.jpg").write_bytes(b"")
    cfg = tiny_pretrain(root, image_batch_size=14)
    with pytest.raises(RunError, match=r"1 of 18 training samples are unreadable, more than "
                       r"max_unreadable=0.01; the first is train/fear/000.jpg .*audit"):
        pretrain(cfg, tmp_path)
    run = pretrain(update(cfg, max_unreadable=0.1), tmp_path)
    assert list(run.provenance["unreadable"]) == ["train/fear/000.jpg"]


def test_a_batch_without_a_readable_sample_is_passed_over(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    for i in range(1, 15):
        (root / f"dfew/Clip/original/{i:05d}.mp4").write_bytes(b"")
    run = finetune(tiny_finetune(root, max_unreadable=1.0), tmp_path)
    assert set(run.metrics().modality) == {"image", "val"}
    assert len(run.provenance["unreadable"]) >= 4 and run.provenance["steps"] == 6


# --- guards

def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(mini, tmp_path, monkeypatch):
    original, factors = stage_finetune.cross_entropy, iter((1, 1, math.nan))
    monkeypatch.setattr(stage_finetune, "cross_entropy",
                        lambda *args, **more: original(*args, **more) * next(factors))
    cfg = tiny_finetune(mini, save_minutes=0.0)
    with pytest.raises(RunError, match=r"loss is nan, .* at step 2 of finetune-\S+, with samples "
                       r"(train|Clip)/\S+, (train|Clip)/\S+: lower the learning rate"):
        finetune(cfg, tmp_path)
    state = checkpoint(locate(cfg, tmp_path))
    assert state["step"] == 2 and all(v.isfinite().all() for v in state["model"].values())


def test_a_gradient_that_is_not_finite_stops(mini, tmp_path, monkeypatch):
    original = Engine.backward

    def backward(self, *args):
        original(self, *args)
        if self.step == 1:
            next(self.model.parameters()).grad[0] = math.inf
    monkeypatch.setattr(Engine, "backward", backward)
    with pytest.raises(RunError, match=r"gradient norm is (inf|nan) at step 1"):
        pretrain(tiny_pretrain(mini), tmp_path)


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_collapsed_router_is_said_once_with_the_remedy(collapsed):
    watch, model = Guard(None, 10), create("s4d_nano_patch16_64", num_experts=4, top_k=1).train()
    layers = model.moae_layers().values()
    for layer in layers if collapsed else ():
        nn.init.constant_(layer.router.bias[:1], 1e6)      # all tokens to the first expert
    for step in range(0, 600, 10):
        with torch.no_grad(), watch.experts(model, step):
            model(torch.randn(1, 3, 64, 64))
    assert len(watch.warned) == (2 if collapsed else 0)
    assert all(layer.record is None for layer in layers)
    assert all("has had under 1% of the assign" in s for s in watch.warned.values())


# --- pieces of the loop

@pytest.mark.parametrize("layer_decay", [0.5, 1.0])
def test_layer_decay_and_weight_decay_reach_every_parameter(layer_decay):
    model = create("s4d_nano_patch16_64", num_experts=2)
    optimizer = optimizer_for(model, (0.9, 0.99), 0.05, layer_decay)
    set_lr(optimizer, 1.0)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    last, biases = len(model.blocks) + 1, ("bias", "q_bias", "v_bias", "b1", "b2")
    for name, parameter in model.named_parameters():
        group, layer = groups[id(parameter)], 0 if name.startswith("patch_embed") else last
        if name.startswith("blocks"):
            layer = int(name.split(".")[1]) + 1
        spared = name.rsplit(".", 1)[1] in biases or "norm" in name
        assert group["lr"] == layer_decay ** (last - layer), name
        assert group["weight_decay"] == (0 if spared else 0.05), name


def test_the_learning_rate_warms_up_and_falls_as_half_a_cosine():
    rates = [cosine(s, 110, 10, 1.0, 0.1) for s in (0, 9, 10, 35, 60, 110)]
    expected = [0.1, 1.0, 1.0, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1]
    assert rates == pytest.approx(expected, abs=1e-5) and cosine(0, 5, 0, 2.0) == 2.0


def test_schedule_decay_clipping_and_clean_gradients_reach_the_step(mini, tmp_path, monkeypatch):
    """The known trap: groups with lr_scale and a schedule that sets one rate for all."""
    seen, clean, step, piece = [], [], Engine.update, Engine.backward

    def backward(self, *args):
        grads = (p.grad for p in self.model.parameters())
        clean.append(self.model.training and not any(g is not None and g.any() for g in grads))
        piece(self, *args)

    def update_(self, clip_grad):
        weights = list(self.model.parameters())
        before = [p.detach().clone() for p in weights]
        loss = step(self, clip_grad)
        moved = max((a - b).abs().max().item() for a, b in zip(weights, before, strict=True))
        norm = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None]).item()
        seen.append((norm, moved, {g["lr_scale"]: g["lr"] for g in self.optimizer.param_groups}))
        return loss
    monkeypatch.setattr(Engine, "update", update_)
    monkeypatch.setattr(Engine, "backward", backward)
    run = finetune(tiny_finetune(mini, layer_decay=0.5, epochs=2, warmup_ratio=0.25,
                                 clip_grad=0.01), tmp_path)
    rates = [cosine(s, 12, 3, 1e-3 * 2 / 8, 1e-6 * 4 / 256) for s in range(12)]
    assert run.metrics().dropna(subset="loss").lr.tolist() == pytest.approx(rates)
    for (norm, _, by_scale), lr in zip(seen, rates, strict=True):
        assert by_scale == pytest.approx({2.0 ** -i: lr * 2.0 ** -i for i in range(5)})
        assert norm == pytest.approx(0.01, rel=1e-3)
    assert all(clean)                                             # after validation too
    assert seen[0][1] == pytest.approx(rates[0], rel=0.1)         # AdamW's first step is its rate


@pytest.mark.parametrize("mixup, cutmix", [(0.8, 0.0), (0.0, 1.0)])
def test_mixing_treats_all_frames_of_a_clip_alike(mini, mixup, cutmix):
    torch.manual_seed(0)
    mix = stage_finetune.mixer(tiny_finetune(mini, mixup=mixup, cutmix=cutmix), 7)
    for shape in ((4, 3, 8, 8), (4, 3, 6, 8, 8)):
        x = torch.arange(4.0).view(4, *[1] * (len(shape) - 1)).expand(shape).clone()
        mixed, y = mix(x, torch.arange(4))
        assert type(mixed) is torch.Tensor and mixed.shape == shape and not torch.equal(mixed, x)
        assert y.shape == (4, 7) and torch.allclose(y.sum(1), torch.ones(4))
        if len(shape) == 5:
            assert torch.equal(mixed[:, :, :1].expand(shape), mixed)
        share = mixed.flatten(1).mean(1)                  # of the mates' numbers, as of labels
        assert torch.allclose(share, y @ torch.arange(7.0), atol=1e-4)
    assert stage_finetune.mixer(tiny_finetune(mini, mixup=0.0, cutmix=0.0), 7) is None


def test_the_moving_average_is_what_is_validated_and_kept(mini, tmp_path, monkeypatch):
    weights, judged, step, judge = [], [], Engine.update, stage_finetune.predict

    def copied(model):
        return model.head["image"].weight.detach().clone()

    def update_(self, *args):
        before, loss = copied(self.model), step(self, *args)
        weights.extend([copied(self.model)] if weights else [before, copied(self.model)])
        return loss

    def predict_(model, *args, **kwargs):
        judged.append(copied(model))
        return judge(model, *args, **kwargs)
    monkeypatch.setattr(Engine, "update", update_)
    monkeypatch.setattr(stage_finetune, "predict", predict_)
    run = finetune(tiny_finetune(mini, ema_decay=0.6), tmp_path)
    average = weights[0]
    for w in weights[1:]:
        average = 0.6 * average + 0.4 * w
    assert torch.allclose(run.load().head["image"].weight, average, atol=1e-6)
    assert not torch.allclose(average, weights[-1], atol=1e-5)
    assert len(judged) == 2 + 4               # validation, test
    assert all(torch.allclose(w, average, atol=1e-6) for w in judged)


def test_predictions_are_the_mean_over_views(mini):
    cfg = tiny_finetune(mini)
    table = tables(cfg)["video"].query("split == 'test'")
    model = create("s4d_nano_patch16_64", img_size=32, num_frames=4).eval()
    nn.init.normal_(model.head["video"].weight)
    for segments, starts in ((1, [1]), (2, [0, 2])):
        data = samples_of(update(cfg, test_segments=segments), "video", table, "test")
        rows, _, features = predict(model, data, batch_size=3)
        for row, path in enumerate(table.path[:2]):
            clip = normalise(read_clip(mini / "dfew" / path, size=32).transpose(0, 1)[None])
            views = torch.cat([clip[:, :, s:s + 4] for s in starts])
            with torch.no_grad():
                answers, hidden = model(views).softmax(-1), model.forward_features(views)
            assert np.allclose(rows.filter(like="prob_").iloc[row], answers.mean(0), atol=1e-5)
            assert np.allclose(features[row], hidden.mean(0), atol=1e-5)


# --- what is shown

def test_a_line_a_minute_where_there_is_no_terminal(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    bar = progress_bar("fine-tuning", 101, 1)
    for _ in range(50):
        now[0] += 2.5
        bar.set_postfix({"image loss": 0.5}, refresh=False)
        bar.update()
    first, second = filter(str.strip, capsys.readouterr().err.splitlines())
    assert first.startswith("s4d: fine-tuning:  25%") and "25/101 [01:00<03:" in first
    assert "49/101 [02:00<02:" in second and "image loss=0.5" in second


# --- several runs

def test_run_all_in_one_process_and_what_is_done_is_found(mini, tmp_path, monkeypatch):
    pre = tiny_pretrain(mini, epochs=0.34)
    jobs = [tiny_finetune(mini, init=pre, tasks=("image",), num_experts=0), pre]
    runs = run_all(jobs, tmp_path, workers=1)
    assert [r.config for r in runs] == jobs and all(r.done for r in runs)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("s4d.training._side_by_side", lambda *_: pytest.fail("for nothing"))
    assert [r.dir for r in run_all(jobs, tmp_path, workers=2)] == [r.dir for r in runs]


@pytest.mark.slow
def test_runs_side_by_side_equal_runs_one_after_another(mini, tmp_path, finished):
    pre = tiny_pretrain(mini, epochs=0.34)
    jobs = [tiny_finetune(mini, init=pre), tiny_finetune(mini)]
    runs = run_all(jobs, tmp_path / "two", workers=2)
    same(runs[1], finished)
    same(runs[0], run_all(jobs[:1], tmp_path / "one", workers=1)[0])


def test_long_runs_go_first_and_each_waits_for_its_own_pretraining(mini, tmp_path, monkeypatch):
    first, other = tiny_pretrain(mini), tiny_pretrain(mini, seed=1)
    short = tiny_finetune(mini, tasks=("image",), num_experts=0)
    on_first, on_other = tiny_finetune(mini, init=first), tiny_finetune(mini, init=other)
    begun, free = [], threading.Event()

    def work(cfg, *_) -> None:
        begun.append(cfg)
        if cfg == on_first:
            free.set()
        assert cfg != other or free.wait(60), "a run waited for another's pre-training"

    monkeypatch.setattr(training, "get_reusable_executor", ThreadPoolExecutor)
    monkeypatch.setattr(training, "_work", work)
    missing = [short, on_other, on_first, other, first]
    training._side_by_side(missing, tmp_path, 2, tqdm(disable=True))
    assert set(begun[:2]) == {first, other} and begun[2] == on_first
    assert set(begun[3:]) == {short, on_other}


@pytest.mark.slow
def test_a_failing_run_among_several_raises_its_own_error_and_ends_the_others(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    (root / "affectnet/train/fear/000.jpg").write_bytes(b"")
    with pytest.raises(RunError, match="unreadable, more than max_unreadable"):
        run_all([tiny_pretrain(root), tiny_pretrain(mini, epochs=1e4)], tmp_path, workers=3)


def be_killed(cfg, runs, parent):
    """A run for which there is no memory, as its process sees it."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_a_sentence(mini, tmp_path, monkeypatch):
    monkeypatch.setattr("s4d.training._work", be_killed)
    with pytest.raises(RunError, match="a training process was killed, .*--n-jobs 1"):
        run_all([tiny_pretrain(mini), tiny_pretrain(mini, seed=1)], tmp_path, workers=2)


def test_a_worker_ends_with_the_process_that_started_it(mini, tmp_path):
    cfg = tiny_pretrain(mini, epochs=1000)
    worker = CONTEXT.Process(target=training._work, args=(cfg, tmp_path, 1))     # of another parent
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGTERM and not locate(cfg, tmp_path).done
