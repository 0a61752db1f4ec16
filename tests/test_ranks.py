"""Several processes compute what one does: the same order, draws, losses and weights, with dying processes and with pieces."""
from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ranks
import torch
from conftest import tiny_finetune, tiny_pretrain
from faults import same
from safetensors.torch import load_file

from s4d.config import ConfigError, to_dict, update
from s4d.data.dataset import cut, part_of
from s4d.models import create
from s4d.training import Run, finetune, locate, pretrain, train
from s4d.training import loop as loops
from s4d.training import ranks as split
from s4d.training.ranks import Draws, Split, idle

# Processes add the same float32 numbers in another order. One rounding is 6e-8 of a number; AdamW divides a gradient by its own size, so
# a rounding of a gradient near zero moves a weight by a share of the learning rate (1e-3 here): over a dozen steps 2e-6 was
# measured, and a sample counted twice, a draw of its own or a mate missed moves them by more than 1e-4. Losses are logged with six digits.
# In bf16 a rounding is 4e-3 of a number, which would hide all of these: the comparisons are made in float32.
WEIGHTS, LOSS = 1e-5, 3e-6


def torchrun(job: dict, folder: Path, processes: int, timeout: float = 110) -> tuple[int, str, float]:
    """Exit status, all output and seconds of `torchrun` on a job of tests/ranks.py."""
    (folder / "job.json").write_text(json.dumps({"faults": [], **job}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               str(Path(__file__).with_name("ranks.py")), str(folder / "job.json")]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=folder)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - begun


def close(a: Run, b: Run) -> None:
    """Losses, scores, predictions and weights equal up to the order of sums."""
    left, right = load_file(a.dir / "weights.safetensors"), load_file(b.dir / "weights.safetensors")
    assert max((left[k] - right[k]).abs().max().item() for k in left) < WEIGHTS
    one, two = ([json.loads(r) for r in (run.dir / "metrics.jsonl").read_text().splitlines()] for run in (a, b))
    assert len(one) == len(two)
    for x, y in zip(one, two):
        assert {k: v for k, v in x.items() if k != "loss"} == {k: v for k, v in y.items() if k != "loss"}
        assert x.get("loss", 0) == pytest.approx(y.get("loss", 0), abs=LOSS)
    if (a.dir / "predictions.csv").exists():
        p, q = a.predictions(), b.predictions()
        assert (p.path == q.path).all() and p.predicted.fillna("").tolist() == q.predicted.fillna("").tolist()
        assert np.allclose(p.filter(like="prob_"), q.filter(like="prob_"), atol=1e-5, equal_nan=True)


def writers(said: str) -> set[str]:
    """The processes that changed a file of the runs."""
    return set(re.findall(r"process (\d) wrote", said))


def broken(mini: Path, folder: Path) -> Path:
    """The datasets with a photo and two test clips that cannot be read, so that the parts of some batches are unequal."""
    root = Path(shutil.copytree(mini, folder))
    for path in ("affectnet/train/fear/001.jpg", "dfew/Clip/original/00015.mp4", "dfew/Clip/original/00020.mp4"):
        (root / path).write_bytes(b"")
    return root


def test_two_processes_equal_one_and_when_one_dies_all_end_and_one_goes_on(mini, tmp_path):
    """Everything random is on: mix-up, router noise, stochastic depth, masks."""
    root = broken(mini, tmp_path / "data")
    # A piece without a sample is among them.
    pre = tiny_pretrain(root, video_batch_size=4, video_epoch_fraction=1.0, max_unreadable=0.5, grad_accum_steps=2, amp=False)
    fine = tiny_finetune(root, epochs=2, image_batch_size=3, video_batch_size=3, save_minutes=0.0, max_unreadable=0.5, amp=False)
    job = {"runs": str(tmp_path / "two"), "said": str(tmp_path / "said.txt"), "configs": [to_dict(pre), to_dict(fine)],
           "faults": [(1, "finetune", 6, "defect")]}
    begun = time.monotonic()
    statuses, said = ranks.group(job, 2)
    assert statuses == [1, 1] and "ValueError: a defect in one process" in said and "another process of this run ended" in said
    assert time.monotonic() - begun < 60
    assert writers(said) == {"0"}
    close(pretrain(pre, tmp_path / "one"), locate(pre, tmp_path / "two"))
    run = locate(fine, tmp_path / "two")
    assert not run.done and loops.load_state(run.dir)["step"] == 5
    whole, parts = finetune(fine, tmp_path / "one"), finetune(fine, tmp_path / "two")      # one process goes on where two stopped
    close(whole, parts)
    assert list(parts.provenance["unreadable"]) == list(whole.provenance["unreadable"]) == ["train/fear/001.jpg"]
    assert len(parts.provenance["missing_in_test"]) == 2


def test_two_processes_evaluate_as_one(mini, tmp_path):
    """And a signal to one of them stops both between two steps. Without noise the routers' noise maps have no gradients."""
    root = broken(mini, tmp_path / "data")
    cfg = tiny_finetune(root, image_batch_size=3, video_batch_size=3, max_unreadable=0.5, test_segments=2, ema_decay=0.5, router_noise=False, amp=False)
    job = {"runs": str(tmp_path / "two"), "said": str(tmp_path / "said.txt"), "configs": [to_dict(cfg)], "faults": [], "batch": 3}
    statuses, said = ranks.group({**job, "faults": [(1, "finetune", 2, "term")]}, 2)
    assert statuses == [1, -15] and "was stopped by a signal to another process after step 2 of 4" in said
    assert loops.load_state(locate(cfg, tmp_path / "two").dir)["step"] == 2
    statuses, said = ranks.group(job, 2)
    assert statuses == [0, 0] and writers(said) == {"0"}
    run = locate(cfg, tmp_path / "two")
    assert run.provenance["processes"] == 2
    close(finetune(cfg, tmp_path / "one"), run)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["defect", "kill"])
def test_torchrun_ends_all_when_one_dies_and_shows_its_error(mini, tmp_path, how):
    cfg = tiny_pretrain(mini, video_batch_size=2, save_minutes=0.0, amp=False)
    status, said, seconds = torchrun({"runs": str(tmp_path), "configs": [to_dict(cfg)], "faults": [(1, "pretrain", 3, how)]}, tmp_path, 2)
    assert status != 0 and seconds < 60 and ("ValueError: a defect in one process" if how == "defect" else "Signal 9 (SIGKILL)") in said
    assert loops.load_state(locate(cfg, tmp_path).dir)["step"] == 2
    status, said, _ = torchrun({"runs": str(tmp_path), "configs": [to_dict(cfg)]}, tmp_path, 2)
    assert status == 0, said
    close(pretrain(cfg, tmp_path / "one"), locate(cfg, tmp_path))


# --- pieces: the same cutting without processes

@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_pieces_of_a_batch_equal_the_batch(mini, tmp_path, stage):
    """The balance loss is left out: with pieces it is the mean over them, a different number."""
    cfg = {"pretrain": tiny_pretrain, "finetune": tiny_finetune}[stage](mini, image_batch=5, video_batch=3, amp=False)
    cfg = update(cfg, aux_loss_weight=0.0) if stage == "finetune" else cfg
    whole, pieces = train(cfg, tmp_path), train(update(cfg, grad_accum_steps=3), tmp_path)
    assert whole.dir != pieces.dir
    close(whole, pieces)


def test_a_piece_without_a_sample_changes_nothing(mini, tmp_path):
    """Three pieces of batches of three, one photo of which cannot be read: in some step a piece is left without."""
    root = broken(mini, tmp_path / "data")
    cfg = tiny_finetune(root, tasks=("image",), image_batch_size=3, grad_accum_steps=3, balanced_sampling=False, max_unreadable=0.5, epochs=2, amp=False)
    run = finetune(cfg, tmp_path)
    assert list(run.provenance["unreadable"]) == ["train/fear/001.jpg"] and run.metrics().loss.dropna().between(0, 9).all()
    cfg = update(cfg, aux_loss_weight=0.0)
    close(finetune(update(cfg, grad_accum_steps=1), tmp_path), finetune(cfg, tmp_path))


def test_a_limited_capacity_is_not_cut(mini, tmp_path):
    with pytest.raises(ConfigError, match="capacity counts the tokens of a whole batch, .* accumulate=1, or with capacity=0"):
        finetune(tiny_finetune(mini, capacity_factor=1.0, grad_accum_steps=2), tmp_path)


def test_pieces_are_smaller_than_the_batch_and_gradients_are_summed(mini, tmp_path, monkeypatch):
    seen = []
    original = loops.Loop.backward
    monkeypatch.setattr(loops.Loop, "backward", lambda self, *a: seen.append((self.step, self.split.window[:])) or original(self, *a))
    run = pretrain(tiny_pretrain(mini, epochs=0.34, image_batch_size=5, video_batch_size=3, repeat_aug=1, grad_accum_steps=3), tmp_path)
    assert len(seen) == 3 * run.provenance["steps"]
    for step in {s for s, _ in seen}:
        windows = [w for s, w in seen if s == step]
        assert windows[0][0] == 0 and windows[-1][1] == windows[0][2] and all(a[1] == b[0] for a, b in zip(windows, windows[1:]))


def test_gradients_are_exchanged_with_the_last_piece_alone(monkeypatch):
    entered = []

    class Net:
        @contextlib.contextmanager
        def no_sync(self):
            entered.append("in")
            yield
            entered.append("out")
    monkeypatch.setattr(split, "rank", lambda: 1)
    parts = Split(torch.nn.Linear(1, 1), torch.device("cpu"), 3, ())
    monkeypatch.setattr(split, "world", lambda: 2)
    parts.rows, parts.net = [2, 7], Net()
    for i, (x,) in enumerate(parts.pieces(torch.arange(7.0))):
        assert entered == ["in", "out"] * i + (["in"] if i < 2 else [])
        assert parts.window == [[2, 4, 9], [4, 6, 9], [6, 9, 9]][i] and x.tolist() == [[0, 1], [2, 3], [4, 5, 6]][i]
        assert parts.weight == pytest.approx(len(x) * 2 / 9) and parts.piece_rows == len(x) + [0, 1, 1][i]
    assert entered == ["in", "out"] * 2


def test_recomputed_activations_change_no_bit(mini, tmp_path, monkeypatch):
    """Drawn again in the backward pass, noise and stochastic depth are what they were, in pieces too."""
    cfg, calls = tiny_finetune(mini, drop_path_rate=0.3, grad_accum_steps=2), []
    whole = finetune(cfg, tmp_path / "a")
    block = sys.modules["s4d.models.vit"].checkpoint
    monkeypatch.setattr("s4d.models.vit.checkpoint", lambda *a, **k: calls.append(1) or block(*a, **k))
    same(whole, finetune(update(cfg, grad_checkpointing=True), tmp_path / "b"))
    assert calls


def test_draws_of_a_piece_are_rows_of_the_draws_of_the_batch():
    x = torch.zeros(6, 4, 3)
    torch.manual_seed(0)
    normal, kept = torch.randn_like(x), torch.empty(6, 1, 1).bernoulli_(0.5)
    for low, high in ((0, 2), (2, 5), (5, 6)):
        torch.manual_seed(0)
        with Draws([low, high, 6]):
            assert torch.equal(torch.randn_like(x[low:high]), normal[low:high])
            assert torch.equal(torch.empty(high - low, 1, 1).bernoulli_(0.5), kept[low:high])
        state = torch.get_rng_state()
    torch.manual_seed(0)
    torch.randn_like(x), torch.empty(6, 1, 1).bernoulli_(0.5)
    assert torch.equal(state, torch.get_rng_state())      # every process has drawn as much as one alone


def test_the_balance_loss_of_one_piece_is_the_models():
    model = create("s4d_nano_patch16_64", num_experts=4).train()
    split = Split(model, torch.device("cpu"), 2, ())
    split.count, split.rows = 1, [6]
    x = torch.randn(6, 3, 64, 64)
    for (part,) in split.pieces(x):
        split.net(part)
        assert split.balance_loss().item() == pytest.approx(model.balance_loss().item(), rel=1e-6) and split.weight == 1


def test_the_idle_head_is_left_alone(mini, tmp_path):
    """AdamW would decay it, and move it by old moments, in a step that is not its own."""
    model = create("s4d_nano_patch16_64")
    assert {id(p) for p in idle(model, torch.zeros(1, 3, 64, 64))} == {id(p) for p in model.head["video"].parameters()}
    for layer in model.moae_layers().values():
        layer.noise_mode = "never"
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in idle(model, torch.zeros(1, 3, 64, 64))} == {n for n in names.values() if "noise" in n or "head.video" in n}
    run = finetune(tiny_finetune(mini, tasks=("video",)), tmp_path)
    before = sys.modules["s4d.training.finetune"].start_model
    torch.manual_seed(run.config.seed)
    assert torch.equal(before(run.config, tmp_path).head["image"].weight, run.load().head["image"].weight)


# --- who reads what

@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_parts_of_a_batch_are_contiguous_complete_and_equal_in_size(world):
    batches = [list(range(10, 17)), list(range(8))]
    for i, batch in enumerate(batches):
        parts = [part_of(batches, r, world)[i] for r in range(world)]
        assert [k for p in parts for k in p] == batch and max(map(len, parts)) - min(map(len, parts)) <= 1
    assert cut(5, 2) == [0, 2, 5]


def test_a_batch_that_cannot_be_cut_is_a_sentence(mini, tmp_path):
    with pytest.raises(ConfigError, match="a batch of 2 samples cannot be cut for 1 processes with accumulate=3"):
        finetune(tiny_finetune(mini, grad_accum_steps=3), tmp_path)


def test_more_processes_than_gpus_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(loops.RunError, match="process 2 of this machine has no GPU, there are 2: .*nproc-per-node 2"):
        loops.join()


def test_merged_evaluations_count_each_sample_once(monkeypatch):
    """Three processes, imitated one after another: sums of disjoint parts are the whole, and nothing is padded."""
    batches = [[i, i + 1] for i in range(0, 14, 2)]
    taken = []
    for r in range(3):
        monkeypatch.setattr(split, "rank", lambda r=r: r)
        monkeypatch.setattr(split, "world", lambda: 3)
        taken += [i for b in split.mine(batches) for i in b]
    assert sorted(taken) == list(range(14))
