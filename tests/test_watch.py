"""Numbers, memory and machines that go wrong during training, what each option changes, and what is shown."""
from __future__ import annotations

import json
import math
import multiprocessing as mp
import os
import shutil
import signal
import sys
import types
from pathlib import Path

import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain, write_image
from faults import own_memory
from torch import nn

from s4d import config
from s4d.__main__ import main
from s4d.config import ConfigError, update
from s4d.models import create, random_mask
from s4d.training import RunError, dry_run, finetune, locate, memory, pretrain, scaling, train
from s4d.training.loop import Loop, Progress, cosine
from s4d.training.runs import Run
from s4d.training.state import Lock, load_state
from s4d.training.watch import Watch, gradient_norm

stage_pretrain, stage_finetune = (sys.modules[f"s4d.training.{stage}"] for stage in ("pretrain", "finetune"))


# --- numbers

def test_a_loss_that_is_no_number_stops_the_run_and_names_step_samples_and_state(mini, tmp_path, monkeypatch):
    original, calls = stage_finetune.cross_entropy, []
    monkeypatch.setattr(stage_finetune, "cross_entropy",
                        lambda *a, **k: calls.append(1) or original(*a, **k) * (math.nan if len(calls) == 3 else 1))
    cfg = tiny_finetune(mini, save_minutes=0.0)
    with pytest.raises(RunError, match=r"loss is nan at step 2 of finetune-\w+-\w+, with samples (train|Clip)/\S+, (train|Clip)/\S+: lower the "
                                       r"learning rate or clip gradients; the last good state is that of step 2, or pass over"):
        finetune(cfg, tmp_path)
    state = load_state(locate(cfg, tmp_path).dir)
    assert state["step"] == 2 and all(v.isfinite().all() for v in state["model"].values())
    monkeypatch.setattr(stage_pretrain, "normalise", lambda x: torch.full_like(x, math.inf, dtype=torch.float32))
    with pytest.raises(RunError, match="loss is nan at step 0 .*no state was saved yet"):
        pretrain(tiny_pretrain(mini), tmp_path)


def poison(monkeypatch, *steps: int) -> None:
    """Makes one gradient infinite in some steps, while the loss stays a number."""
    original = Loop.backward

    def backward(self, *args):
        original(self, *args)
        if self.step in steps:
            next(self.model.parameters()).grad[0] = math.inf
    monkeypatch.setattr(Loop, "backward", backward)


def test_a_gradient_that_is_no_number_stops_or_is_skipped_and_counted(mini, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 1, 4)
    with pytest.raises(RunError, match=r"gradient norm is (inf|nan) \(loss 0\.\d+|gradient norm is (inf|nan) \(loss 1\.\d+"):
        pretrain(tiny_pretrain(mini), tmp_path)
    cfg = tiny_pretrain(mini, skip_nonfinite=True)
    run = pretrain(cfg, tmp_path)
    assert run.provenance["skipped"] == 2 and len(run.provenance["warnings"]) == 1 and run.metrics().step.tolist() == list(range(6))
    assert capsys.readouterr().err.count("skipped, as skip_nonfinite asks") == 1      # said once
    assert all(v.isfinite().all() for v in run.load().state_dict().values())
    poison(monkeypatch, *range(12))
    with pytest.raises(RunError, match="after 10 steps in a row that were skipped"):
        pretrain(update(cfg, epochs=2), tmp_path)


def test_skipped_steps_that_are_not_in_a_row_do_not_stop_a_run(tmp_path):
    watch = Watch(lambda _: None, skip=True)
    taken = [watch.step(1.0, math.inf if step % 2 else 1.0, step, tmp_path, list, None) for step in range(40)]
    assert taken == [True, False] * 20 and watch.skipped == 20


def test_an_exploding_norm_is_said_once(tmp_path):
    said = []
    watch = Watch(said.append)
    for step in range(60):
        assert watch.step(1.0, 1.0, step, tmp_path, list, None)
    assert not said
    for step in range(60, 63):
        assert watch.step(1.0, 1000.0, step, tmp_path, list, None)
    assert len(said) == 1 and "gradient norm 1e+03 at step 60" in said[0] and "1000 times its median" in said[0] and "clip_grad" in said[0]
    again = Watch(said.append, watch.said)                 # in a call that continues the run
    for step in range(120):
        again.step(1.0, 1.0 if step < 60 else 1e6, step, tmp_path, list, None)
    assert len(said) == 1


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_collapsed_router_is_said_once_with_the_remedy(collapsed):
    said = []
    watch, model = Watch(said.append), create("s4d_nano_patch16_64", num_experts=4, top_k=1).train()
    if collapsed:
        for layer in model.moae_layers().values():
            nn.init.constant_(layer.router.bias[:1], 1e6)  # all tokens to the first expert
    for step in range(0, 600, 10):
        with torch.no_grad():
            watch.listen(model, step)
            model(torch.randn(1, 3, 64, 64))
            watch.routers(model, step)
    assert len(said) == (2 if collapsed else 0) and all(layer.record is None for layer in model.moae_layers().values())
    if collapsed:
        assert "of blocks.1.moae has had under 1% of the tokens since step 0" in said[0] and "raise balance" in said[0]


def test_dead_and_rare_classes_are_said_before_training(mini, tmp_path, capsys):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    shutil.rmtree(root / "affectnet/train/fear")
    run = finetune(tiny_finetune(root, epochs=0.2), tmp_path)
    assert "no image training sample shows fear: its head cannot learn it" in capsys.readouterr().err
    assert len(run.provenance["warnings"]) == 1
    said = []
    Watch(said.append).classes("image", [0] * 500 + [1] * 4 + [2, 3, 4, 5, 6] * 50, 7, balanced=True)
    assert len(said) == 1 and "happiness (4)" in said[0] and "balanced=False" in said[0]
    Watch(said.append).classes("image", [0] * 500 + [1] * 4 + [2, 3, 4, 5, 6] * 50, 7, balanced=False)
    assert len(said) == 1


# --- memory and processes

def test_out_of_memory_says_what_would_fit(mini, tmp_path, monkeypatch):
    """As CUDA reports it. What a sample takes is measured; the room is given, between the needs of two and of four photos."""
    seen = {}

    def full(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    monkeypatch.setattr(Loop, "backward", lambda self, *_: seen.update(loop=self) or full(self))
    monkeypatch.setattr(memory, "capacity", lambda device: 10 ** 12)
    cfg = tiny_finetune(mini, tasks=("image",), image_batch_size=4, save_minutes=0.0)
    with pytest.raises(RunError, match="out of memory at step 0 .* with 4 image samples at once: .*this should fit: close other programs"):
        finetune(cfg, tmp_path)
    memory.recompute(seen["loop"].model, False)
    each, beside = memory.by_sample(seen["loop"], "image")
    model = create("s4d_nano_patch16_64", img_size=32, num_frames=4, num_experts=8).train()
    assert beside >= 16 * sum(p.numel() for p in model.parameters())
    memory.recompute(model, True)
    four, two = (memory.kept(model, (torch.zeros(n, 3, 32, 32),)) for n in (4, 2))
    assert four - two < 1.5 * each                                         # recomputed activations are not kept
    monkeypatch.setattr(memory, "capacity", lambda device: int((beside + 2.5 * each) / 0.9))
    with pytest.raises(RunError, match=r"one takes [\d.e-]+ GB, the model [\d.e-]+ GB of .*\(measured\); accumulate=2 cuts the same batch into "
                                       r"pieces that fit, or image_batch=2; checkpointing=True fits up to \d+ samples at once; the last state"):
        finetune(cfg, tmp_path)
    with pytest.raises(RunError, match="the model does not fit"):
        raise memory.out_of_memory(None)


def test_recomputation_reaches_the_decoder_too(mini):
    """It has all tokens, so most of what a pre-training step keeps is its own."""
    cfg = tiny_pretrain(mini)
    model, kept = sys.modules["s4d.training.runs"].build(cfg).train(), []
    for on in (False, True):
        memory.recompute(model, on)
        four, two = (memory.kept(model, (torch.zeros(n, 3, 4, 32, 32), random_mask(n, 8, 0.75, torch.Generator().manual_seed(0)))) for n in (4, 2))
        kept.append(four - two)
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("said", ["DataLoader worker (pid 8) is killed by signal: Killed. ", "DataLoader worker (pid(s) 8) exited unexpectedly"])
def test_a_loading_process_that_ends_is_a_sentence(mini, tmp_path, monkeypatch, said):
    def fail(*_):
        raise RuntimeError(said)
    monkeypatch.setattr("s4d.training.loop.loader", fail)
    with pytest.raises(RunError, match=r"a loading process ended \(DataLoader worker .* memory: use fewer workers or smaller batches"):
        pretrain(tiny_pretrain(mini), tmp_path)
    assert Lock.holder(locate(tiny_pretrain(mini), tmp_path).dir) is None


@pytest.mark.slow
def test_a_killed_loading_process_is_found_and_leaves_no_other(mini, tmp_path, monkeypatch):
    original = Loop.update

    def update_(self, *args):
        for child in mp.active_children():
            os.kill(child.pid, signal.SIGKILL)
        return original(self, *args)
    monkeypatch.setattr(Loop, "update", update_)
    with pytest.raises(RunError, match=r"a loading process ended \(DataLoader worker"):
        pretrain(tiny_pretrain(mini, num_workers=1, epochs=4), tmp_path)
    assert not [c for c in mp.active_children() if c.is_alive() and "Spawn" in type(c).__name__]


def test_memory_stays_flat(mini, tmp_path, monkeypatch):
    """Two hundred steps; `make soak` has two thousand."""
    sizes = []
    original = Loop.advance

    def advance(self, *args):
        original(self, *args)
        sizes.append(own_memory())
    monkeypatch.setattr(Loop, "advance", advance)
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell a process's memory")
    pretrain(update(tiny_pretrain(mini, image_batch_size=1, epochs=15, save_minutes=0.02), video=None), tmp_path)
    assert len(sizes) == 210 and sizes[-1] - sizes[60] < 4e6      # a step's batch and gradients are 3 MB


# --- each option does something

def steps_of(mini, tmp_path, monkeypatch, **changes) -> tuple[list[dict], Run]:
    """What each step of a short fine-tuning had: norm after clipping, learning rates, and the run."""
    seen, original = [], Loop.update

    def update_(self, clip_grad=0.0):
        before = [p.detach().clone() for g in self.optimizer.param_groups for p in g["params"]]
        gradients = gradient_norm(self.model, 0.0).item()
        out = original(self, clip_grad)
        after = [p for g in self.optimizer.param_groups for p in g["params"]]
        seen.append(dict(norm=gradients, clipped=gradient_norm(self.model, 0.0).item(), lrs=[g["lr"] for g in self.optimizer.param_groups],
                         scales=[g.get("lr_scale", 1.0) for g in self.optimizer.param_groups], lr=max(g["lr"] for g in self.optimizer.param_groups),
                         moved=max((a - b).abs().max().item() for a, b in zip(before, after))))
        return out
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "update", update_)
        run = finetune(tiny_finetune(mini, **changes), tmp_path)
    return seen, run


def test_layer_decay_reaches_the_step(mini, tmp_path, monkeypatch):
    """The known trap: groups with lr_scale and a schedule that sets one rate for all."""
    seen, run = steps_of(mini, tmp_path, monkeypatch, layer_decay=0.5)
    scales = sorted({round(math.log2(s)) for s in seen[0]["scales"]})
    assert scales == [-4, -3, -2, -1, 0]
    for row, lr in zip(seen, run.metrics().dropna(subset="loss").lr):
        assert row["lrs"] == pytest.approx([lr * s for s in row["scales"]])


def test_the_schedule_and_warm_up_reach_the_step(mini, tmp_path, monkeypatch):
    seen, run = steps_of(mini, tmp_path, monkeypatch, epochs=2, warmup=0.25)
    rates = [row["lr"] for row in seen]
    assert rates == pytest.approx([cosine(s, 12, 3, 1e-3 * 2 / 8, 1e-6 * 4 / 256) for s in range(12)])
    assert rates[0] < rates[2] > rates[-1] and seen[0]["moved"] == pytest.approx(rates[0], rel=0.1)      # AdamW's first step is its rate


def test_clipping_bounds_the_norm(mini, tmp_path, monkeypatch):
    free, _ = steps_of(mini, tmp_path, monkeypatch)
    bound, _ = steps_of(mini, tmp_path, monkeypatch, clip_grad=0.01)
    assert all(row["norm"] > 0.01 and row["clipped"] == pytest.approx(0.01, rel=1e-3) for row in bound)
    assert all(row["clipped"] == row["norm"] for row in free)


def test_a_step_has_its_own_gradients_alone_and_is_in_training_mode(mini, tmp_path, monkeypatch):
    """Also after a validation, which switches to evaluation."""
    seen, original = [], Loop.backward

    def backward(self, *args):
        seen.append((self.model.training, any(p.grad is not None and p.grad.any() for p in self.model.parameters())))
        original(self, *args)
    monkeypatch.setattr(Loop, "backward", backward)
    finetune(tiny_finetune(mini, epochs=2), tmp_path)
    assert seen == [(True, False)] * 12


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixing_reaches_the_loss(mini, tmp_path, monkeypatch, option):
    labels, original = [], stage_finetune.cross_entropy
    monkeypatch.setattr(stage_finetune, "cross_entropy", lambda x, y, **k: labels.append(y) or original(x, y, **k))
    finetune(tiny_finetune(mini, mixup=0.0, cutmix=0.0), tmp_path)
    assert all(y.dtype == torch.int64 for y in labels)
    labels.clear()
    finetune(tiny_finetune(mini, **{"mixup": 0.0, "cutmix": 0.0, option: 1.0}), tmp_path)
    assert all(y.ndim == 2 and torch.allclose(y.sum(1), torch.ones(len(y))) for y in labels) and any((y > 0).sum(1).max() > 1 for y in labels)


def test_the_moving_average_is_what_is_validated_and_kept(mini, tmp_path, monkeypatch):
    weights, original = [], Loop.update

    def update_(self, *args):
        weights.append(self.model.head["image"].weight.detach().clone()) if not weights else None
        out = original(self, *args)
        weights.append(self.model.head["image"].weight.detach().clone())
        return out
    monkeypatch.setattr(Loop, "update", update_)
    judged, predict = [], stage_finetune.predict
    with monkeypatch.context() as patch:
        patch.setattr(stage_finetune, "predict", lambda model, *a, **k: judged.append(model.head["image"].weight.clone()) or predict(model, *a, **k))
        run = finetune(tiny_finetune(mini, ema_decay=0.6, test_each_epoch=True), tmp_path)
    average = weights[0]
    for w in weights[1:]:
        average = 0.6 * average + 0.4 * w
    assert torch.allclose(run.load().head["image"].weight, average, atol=1e-6) and not torch.allclose(average, weights[-1], atol=1e-5)
    assert len(judged) == 2 + 4 + 4 and all(torch.allclose(w, average, atol=1e-6) for w in judged)      # validation, each epoch's test, the last
    monkeypatch.setattr(Loop, "update", original)
    plain = finetune(tiny_finetune(mini), tmp_path)
    assert torch.equal(plain.load().head["image"].weight, weights[-1]) and plain.dir != run.dir


def test_class_balance_reaches_the_batches(mini, tmp_path, monkeypatch):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    for i in range(20):
        write_image(root / "affectnet/train/anger" / f"1{i:02d}.jpg", i)
    counts = {}
    for balanced in (False, True):
        labels, original = [], stage_finetune.cross_entropy
        with monkeypatch.context() as patch:
            patch.setattr(stage_finetune, "cross_entropy", lambda x, y, **k: labels.extend(y.tolist()) or original(x, y, **k))
            finetune(tiny_finetune(root, tasks=("image",), balanced_sampling=balanced, mixup=0.0, cutmix=0.0, epochs=2), tmp_path)
        counts[balanced] = labels.count(6) / len(labels)
    assert counts[False] > 0.5 and counts[True] < 0.3


def test_the_deterministic_option_reaches_torch(monkeypatch):
    from s4d.training import loop
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setattr(loop, "join", lambda: torch.device("cpu"))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    loop.pick_device(True), loop.pick_device(False)
    assert asked == [True, False]
    for cls in (config.Pretrain, config.Finetune):         # how a run is carried out does not name it
        assert config.digest(cls(None, None)) == config.digest(cls(None, None, deterministic=True, checkpointing=True, tensorboard=True))
        assert config.digest(cls(None, None)) != config.digest(cls(None, None, accumulate=2))


# --- what is shown

def test_the_bar_shows_rate_losses_and_scores(capsys, monkeypatch):
    progress = Progress("fine-tuning", 10, 2)
    progress.step("image", 1.5)
    progress.step("video", 0.25)
    progress.scores({"image_uar": 0.5, "video_war": 0.125})
    assert progress.shown == {"image": "1.500", "video": "0.250", "image UAR": "50.0", "video WAR": "12.5"}
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress("fine-tuning", 10, 2)
    progress.step("image", 1.5)
    progress.bar.refresh()
    shown = capsys.readouterr().err
    assert "3/10" in shown and "step/s" in shown and "image 1.500" in shown and "<" in shown       # elapsed<left
    progress.close()


def test_tensorboard_only_where_it_is_installed_and_asked_for(mini, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((Path(folder).name, purge_step))

        def add_scalar(self, *row):
            written.append(row)

        def close(self):
            written.append("closed")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="tensorboard=True, but TensorBoard is not installed: pip install tensorboard"):
        pretrain(tiny_pretrain(mini, tensorboard=True), tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    run = pretrain(tiny_pretrain(mini, tensorboard=True), tmp_path)
    assert written[0] == ("tensorboard", 0) and written[-1] == "closed" and sum(r[0] == "image/loss" for r in written[1:-1]) == 3
    assert {r[1] for r in written[1:-1] if r[0].endswith("/loss")} == set(run.metrics().loss)


def test_runs_lists_states_differences_and_scores(mini, tmp_path, capsys, monkeypatch, finished):
    assert main(["runs", "--runs", str(tmp_path / "none")]) == 2
    assert "holds no runs" in capsys.readouterr().err
    shutil.copytree(finished.dir, tmp_path / finished.dir.name)
    cfg = tiny_pretrain(mini)
    monkeypatch.setattr(Loop, "update", lambda self, *_: signal.raise_signal(signal.SIGINT) or (1.0, 1.0))
    for seed, lr in ((0, 1.6e-3), (1, 0.5)):
        with pytest.raises(KeyboardInterrupt):
            train(update(cfg, seed=seed, lr=lr), tmp_path)
    lock = Lock(locate(cfg, tmp_path).dir).take()
    capsys.readouterr()
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    lock.release()
    best = max(finished.metrics().image_uar.dropna())
    assert lines[finished.dir.name].split()[1:3] == ["finished", "6"] and f"{100 * best:.1f}" in lines[finished.dir.name]
    assert f"running: process {os.getpid()}" in lines[locate(cfg, tmp_path).dir.name]
    other = lines[locate(update(cfg, seed=1, lr=0.5), tmp_path).dir.name]
    assert "interrupted" in other and other.endswith("seed=1, lr=0.5")
    assert main(["runs", "show", "finetune", "--runs", str(tmp_path), "--out", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["runs", "show", "nobody", "--runs", str(tmp_path)]) == 2 and "no run in" in capsys.readouterr().err
    (tmp_path / finished.dir.name / "config.json").write_text('{"kind":')
    assert main(["runs", "--runs", str(tmp_path)]) == 2
    assert "config.json (Expecting value" in (said := capsys.readouterr().err) and "missing or damaged; remove the folder" in said


def test_a_dry_run_says_steps_memory_and_time_and_leaves_nothing(mini, tmp_path, capsys, monkeypatch):
    cfg = tiny_finetune(mini, epochs=3, init=tiny_pretrain(mini), cache=True)
    data = {p: set(p.rglob("*")) for p in (Path(cfg.image.root), Path(cfg.video.root))}
    found = dry_run(cfg)
    assert data == {p: set(p.rglob("*")) for p in data}                    # no packed cache either
    assert found["steps"] == 18 and found["measured"] == 10 and set(found["seconds_per_step"]) == {"image", "video"}
    each = found["seconds_per_step"]
    assert found["hours"] == pytest.approx(9 * (each["image"] + each["video"]) / 3600, rel=0.01) and found["peak_gb"] > 0.1
    small = type("P", (), {"pretrain": tiny_pretrain(mini)})
    monkeypatch.setattr(config, "profile", lambda *_, **__: small)
    assert main(["pretrain", "--runs", str(tmp_path / "runs"), "--dry-run", "--epochs", "2"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[: said.rindex("}") + 1])["epochs"] == 2 and "12 steps; a step takes" in said and not (tmp_path / "runs").exists()
    assert Loop.probe is None


def test_a_notebook_and_the_command_line_make_the_same_run(mini, tmp_path, capsys, monkeypatch):
    small = type("P", (), {"finetune": tiny_finetune(mini), "pretrain": tiny_pretrain(mini)})
    monkeypatch.setattr(config, "profile", lambda *_, **__: small)
    assert main(["finetune", "--runs", str(tmp_path), "--init", "none", "--method", "static", "--epochs", "0.5", "--tensorboard"]) == 2
    assert main(["finetune", "--runs", str(tmp_path), "--init", "none", "--method", "static", "--epochs", "0.5", "--checkpointing"]) == 0
    run = locate(tiny_finetune(mini, tasks=("image",), num_experts=0, epochs=0.5), tmp_path)
    assert run.done and str(run.dir) in capsys.readouterr().out


def test_the_cost_of_many_gpus_on_paper():
    model = {"parameters": 1e8, "image": 1e12, "video": 8e12}
    machine = scaling.Machine(tflops=100, use=0.5, node=8, inside=100, between=10, latency=0)
    sent, moving, _ = scaling.exchange(1e8, 8, machine)
    assert sent == pytest.approx(0.7e9) and moving == pytest.approx(0.7e9 / 100e9)         # 2 (n - 1) / n of four bytes a parameter
    assert scaling.exchange(1e8, 16, machine)[1] == pytest.approx(2 * 15 / 16 * 4e8 / 80e9)
    weak, strong = (scaling.table(model, {"image": 8, "video": 8}, machine, strong) for strong in (False, True))
    assert weak.image_ms.tolist() == [20.0] * 8 and strong.video_ms[:1].tolist() == [160.0]
    assert strong.image_efficiency[1:].isna().all()        # less than one sample a GPU
    assert weak.video_efficiency.between(0, 1).all() and weak.video_efficiency.is_monotonic_decreasing
    assert scaling.limit(strong, "image") == 8 and scaling.limit(weak, "video", 1.1) is None
    for given, said in ((dict(use=0), "use is 0: expected a number above 0"), (dict(latency=-1.0), "latency is -1.0: expected a number from 0")):
        with pytest.raises(ConfigError, match=said):
            scaling.Machine(**given)
    nano = scaling.work("s4d_mae_nano_patch16_64")
    assert nano["video"] > nano["image"] > 3 * 2 * 1e5 and "efficiency" in scaling.text(weak)
