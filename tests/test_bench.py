"""What models cost: counts against formulas, the bench in miniature, a GPU's check rehearsed."""
import importlib.util
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import gpu_check
import pandas as pd
import pytest
import torch

import s4d.models as models
from s4d import bench
from s4d.__main__ import main
from s4d.models import S4D, DualMAE
from s4d.models.tokens import random_mask

TINY = dict(img_size=32, num_frames=4, patch_size=16, embed_dim=32, depth=2, num_heads=2)


def dense_by_hand(tokens: int, d: int = 32, depth: int = 2) -> int:
    """24 D^2 per token and block, 4 L D for attention; the embedding; the head of 7 classes."""
    return depth * tokens * (24 * d * d + 4 * tokens * d) + 2 * tokens * 1536 * d + 2 * 7 * d


@pytest.mark.parametrize("task, tokens", [("image", 4), ("video", 8)])
def test_counts_are_those_of_the_equations(task, tokens):
    counted = partial(bench.cost, task=task, ratio=0.5)
    dense, mixed = (partial(S4D, num_experts=e, **TINY) for e in (0, 4))
    one = dense_by_hand(tokens)
    assert counted(dense, step=False)["GFLOP"] * 1e9 == one
    # two more products for each product's gradients, one for the embedding's: pixels have none
    assert counted(dense, step=True)["GFLOP"] * 1e9 == 3 * one - 2 * tokens * 1536 * 32
    # a layer of 4 experts: 2 chosen of D^2 / 2 weights, the router, and the experts' last biases
    moae = 2 * tokens * (2 * 32 * 32 // 2 + 4 * 32 + 4 * 32)
    assert counted(mixed, step=False)["GFLOP"] * 1e9 == one + moae
    noise = 2 * tokens * 4 * 32
    assert counted(mixed, step=True)["GFLOP"] * 1e9 == (
        3 * (one + moae + noise) - 2 * tokens * 1536 * 32)
    seen, d = tokens // 2, 16
    encoder = dense_by_hand(seen) - 2 * 7 * 32 + 2 * seen * 32 * d
    decoder = 2 * tokens * (24 * d * d + 4 * tokens * d) + 2 * seen * d * 1536    # two blocks
    mae = partial(DualMAE, **TINY)
    assert counted(mae, step=False)["GFLOP"] * 1e9 == encoder + decoder


def test_the_table_of_sizes(monkeypatch):
    for name in [n for n in models.VARIANTS if "nano" not in n]:
        monkeypatch.delitem(models.VARIANTS, name)
    photo, clip = bench.sizes({"image": 0.75, "video": 0.9})
    parameters = sum(p.numel() for p in models.create("s4d_nano_patch16_64").parameters())
    assert (photo["task"], photo["tokens"], clip["tokens"]) == ("image", 16, 64)
    assert clip["dense, M"] < clip["S4D, M"] == parameters / 1e6
    # the committed table, to its six digits
    assert f"{clip['S4D, GFLOP']:.6g} {clip['pre-training, GFLOP']:.6g}" == "0.101189 0.0359398"


@pytest.fixture
def tiny(monkeypatch):
    for size in ("small", "base"):
        monkeypatch.setitem(models.VARIANTS, f"{size}_patch16_160", TINY)
    monkeypatch.setattr(bench, "SHAPES", ((64, 64, 64),))


@pytest.mark.parametrize("stage", bench.EXPERTS)
def test_the_reference_in_the_bench_trains_the_same(tiny, stage):
    ours = bench.model_of(stage, "small")
    plain = bench.plain_of(stage, "small", ours)
    for layer in plain.layers() if stage == "MoAE" else ():
        assert layer.noise
        layer.noise = False
    for layer in ours.moae_layers().values() if stage == "MoAE" else ():
        layer.noise_mode = "never"
    x, y = torch.randn(2, 3, 4, 32, 32), torch.tensor([1, 2])
    mask = random_mask(2, 8, 0.5) if stage == "pre-training" else None
    a, b = (bench.training_step(model, x, y, mask, torch.float32) for model in (ours, plain))
    first, second = ((step().item(), step().item()) for step in (a, b))
    assert first == pytest.approx(second, abs=1e-5) and first[0] != first[1]


def test_the_bench_command_prints_every_stage(tiny, capsys, monkeypatch):
    counted = bench.cost(partial(S4D, num_experts=0, **TINY), "video", 0.9, step=True)
    monkeypatch.setattr(bench, "cost", lambda build, task, *_, **__: counted | {
        "tokens": {"image": 4, "video": 8}[task]})           # counting has tests of its own
    assert main(["bench", "--seconds", "0.01"]) == 0
    said = capsys.readouterr().out
    for words in ("matrix products: float32", "bf16: ms", "MoAE", "float32: reference"):
        assert words in said
    if importlib.util.find_spec("transformers") is None:
        assert main(["bench", "--seconds", "0.01", "--peers"]) == 2
        assert "s4d: transformers is not installed" in capsys.readouterr().err


def test_calls_are_timed_in_turns_and_the_first_is_not_counted():
    order = []

    def call(name: str) -> torch.Tensor:
        time.sleep(0.05 if order.count(name) == 0 else 0.001)
        order.append(name)
        return torch.zeros(())

    taken = bench.race({name: partial(call, name) for name in "ab"}, 0.0)
    assert order == list("abab" * 2) and all(0.001 <= v < 0.04 for v in taken.values())


# --- the check for a GPU, rehearsed on a CPU as on its bare machine: small, without codecs

MISSING = ("av", "decord", "tyro", "papermill", "seaborn", "nbformat")


def rehearse(out: Path, monkeypatch, *more: str) -> dict[str, pd.DataFrame]:
    for name in MISSING:
        (out / f"{name}.py").write_text("raise ImportError('not on that machine')")
    monkeypatch.setenv("PYTHONPATH", str(out))
    command = [sys.executable, gpu_check.__file__, "--tiny", "--device", "cpu", "--out", str(out)]
    subprocess.run([*command, "--here", *more], check=True, timeout=300)
    return {path.stem: pd.read_csv(path) for path in out.glob("*.csv")}


def test_every_part_runs_to_its_end(tmp_path, monkeypatch):
    found = rehearse(tmp_path, monkeypatch, "--workers", "0")
    assert set(found) == set(gpu_check.SECONDS)
    assert found["correct"].passed.all() and set(found["correct"].way) >= {"eager", "compiled"}
    assert found["correct"].gradient_error.max() > 1e-7                # two ways were compared
    ours = found["fast"][found["fast"].model == "package"]
    assert set(ours.stage) >= set(gpu_check.bench.EXPERTS) and (ours.step_ms > 0).all()
    assert "compiled" in set(found["fast"].model) and len(found["faces"]) == 2
    for stage, what in (("pretraining", "image loss"), ("finetuning", "video WAR")):
        assert {"steps a second", "waiting, per cent", what} <= set(found[stage].what)
    assert found["lossless"].killed.all() and found["lossless"].equal.all()


@pytest.mark.slow
def test_loading_processes_lack_the_codecs_too(tmp_path, monkeypatch):
    given = "--workers", "1", "--parts", "faces", "pretraining"
    assert set(rehearse(tmp_path, monkeypatch, *given)) == {"faces", "pretraining"}


@pytest.mark.parametrize("code, state", [("raise ValueError('no such kernel')", "failed"),
                                         ("import time; time.sleep(60)", "out of time")])
def test_a_part_that_fails_or_hangs_is_said(monkeypatch, code, state):
    monkeypatch.setitem(gpu_check.SECONDS, "fast", 1)
    found = gpu_check.limited("fast", [sys.executable, "-c", code])
    assert found["state"] == state and found["seconds"] < 20
    assert any("no such kernel" in line for line in found["said"]) == (state == "failed")
