"""What models cost: formulas against PyTorch's counter, kept activations, and the bench in miniature."""
from __future__ import annotations

import math
import time
from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import s4d.models as models
from s4d import bench
from s4d.__main__ import main
from s4d.models import DualMAE, S4D, create, random_mask
from s4d.models.cost import flops, saved_bytes, sizes

TINY = dict(img_size=32, num_frames=4, patch_size=16, embed_dim=32, depth=2, num_heads=2)
DECODER = dict(decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
CPU = torch.device("cpu")
INPUT = {"image": (2, 3, 32, 32), "video": (2, 3, 4, 32, 32)}


def grouped(a, b, *args, **kwargs) -> int:
    """Operations of a grouped product from its shapes: rows against each group's matrix, or the weights' gradient."""
    return 2 * math.prod(a) * b[-1]


def counted(call) -> int:
    """PyTorch's count; attention in its plain form, whose backward pass computes nothing twice."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped}) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("task", INPUT)
@pytest.mark.parametrize("experts, by_expert", [(0, None), (4, False), (4, True)])
def test_the_formula_counts_what_pytorch_counts_in_a_classifier(task, experts, by_expert):
    model = S4D(num_experts=experts, **TINY).eval()
    for layer in model.moae_layers().values():
        layer.by_expert = by_expert
    x = torch.randn(INPUT[task])
    assert counted(lambda: model(x)) == 2 * flops(model, task, every_expert=by_expert is False)
    model.train()                # the router's noise is one more product, in training alone
    step = counted(lambda: (model(x).sum() + model.balance_loss()).backward())
    assert step == 2 * flops(model, task, every_expert=by_expert is False, step=True)


@pytest.mark.parametrize("task, length", [("image", 4), ("video", 8)])
def test_the_formula_counts_what_pytorch_counts_in_an_autoencoder(task, length):
    mae, x, mask = DualMAE(**TINY, **DECODER), torch.randn(INPUT[task]), random_mask(2, length, 0.5)
    assert counted(lambda: mae(x, mask)) == 2 * flops(mae, task, removed=length // 2)
    assert counted(lambda: mae(x, mask).backward()) == 2 * flops(mae, task, removed=length // 2, step=True)


def test_the_formula_counts_the_nano_stem():
    model = create("s4d_nano_patch16_64").eval()
    x = torch.randn(1, 3, 64, 64)
    assert counted(lambda: model(x)) == flops(model, "image", every_expert=True)
    assert counted(lambda: model.train()(x).sum().backward()) == flops(model, "image", every_expert=True, step=True)


def test_kept_activations_grow_with_the_batch_and_leave_parameters_out():
    model = S4D(num_experts=0, **TINY).train()
    one, two = (saved_bytes(model, lambda: model(torch.randn(n, 3, 32, 32))) for n in (1, 2))
    assert 0 < one < two <= 2 * one and saved_bytes(model, lambda: model.fc_norm.weight * model.fc_norm.bias) == 0
    layer, x = torch.nn.Linear(8, 8), torch.randn(4, 8)
    assert saved_bytes(layer, lambda: torch.nn.functional.gelu(layer(x))) == 2 * 4 * 8 * 4      # its input, and GELU's


def test_the_table_of_sizes(monkeypatch):
    for name in [n for n in models.VARIANTS if "nano" not in n]:
        monkeypatch.delitem(models.VARIANTS, name)
    photo, clip = sizes({"image": 0.75, "video": 0.9})
    nano, mae, x = create("s4d_nano_patch16_64").train(), create("s4d_mae_nano_patch16_64"), torch.randn(1, 3, 8, 64, 64)
    assert (photo["variant"], photo["task"], photo["tokens"], clip["tokens"]) == ("nano_patch16_64", "image", 16, 64)
    assert clip["S4D, MB"] == saved_bytes(nano, lambda: nano(x)) / 1e6 > photo["S4D, MB"]      # fake tensors count alike
    assert clip["S4D, GFLOP"] == flops(nano, "video") / 1e9 and clip["pre-training, GFLOP"] == flops(mae, "video", 57) / 1e9
    assert clip["pre-training, MB"] < clip["S4D, MB"] and clip["dense, M"] < clip["S4D, M"] == models.count_parameters(nano) / 1e6


def test_the_reference_in_the_bench_computes_the_same():
    for stage in bench.STAGES:
        ours, plain = (bench.model_of(stage, TINY, DECODER, reference=r).eval() for r in (False, True))
        plain.load_state_dict(models.to_released(ours))
        for layer in plain.layers() if stage == "MoAE" else ():
            layer.noise = False
        for task in INPUT:
            torch.manual_seed(0)
            a = bench.Task(ours, task, 2, TINY, CPU, amp=False)
            b = bench.Task(plain, task, 2, TINY, CPU, amp=False)
            b.x, b.y, b.mask = a.x, a.y, a.mask
            assert abs(a.loss().item() - b.loss().item()) < 1e-5
        before = [p.clone() for p in ours.parameters()]
        a.forward()
        assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), before)) and not ours.training
        a.step()
        assert not any(torch.equal(p, q) for p, q in zip(ours.parameters(), before) if q.any() and p.grad is not None)


def test_the_bench_of_models_has_a_row_for_each_size_stage_and_input(monkeypatch):
    monkeypatch.setattr(bench, "SHAPES", ((64, 64, 64),) * 4)
    rate = {torch.float32: bench.matmul_rate(CPU, torch.float32, 0.01), torch.bfloat16: 1e11}
    assert rate[torch.float32] > 1e8
    given = {"tiny": (TINY, DECODER)}
    table = bench.models(given, {"image": 2, "video": 1}, CPU, rate, 0.01)
    assert list(table["stage"]) == ["dense", "MoAE", "dense", "MoAE", "pre-training", "pre-training"]
    numbers = table.drop(columns=["size", "stage", "input"])
    assert (numbers > 0).all(axis=None) and (table[["forward_limit_%", "step_limit_%"]] < 100).all(axis=None)
    mae, row = DualMAE(**TINY, **DECODER), table.iloc[-2]
    assert [row["forward_GFLOP"], row["step_GFLOP"]] == [2 * flops(mae, "image", 3, step=s) / 1e9 for s in (False, True)]
    added = bench.over_dense(table, given)
    assert len(added) == 2 and (0 < added["chosen_%"]).all() and (added["chosen_%"] < added["all_%"]).all()
    assert (bench.formulations(0.01, CPU, (32,), 20).drop(columns="width") > 0).all(axis=None)
    curve = bench.curve(TINY, DECODER, CPU, 1e11, 0.01, (1, 2))
    assert list(curve["batch"]) == [1, 2, 1, 2]
    assert (curve["step_ms"] > 0).all() and curve["memory_MB"][1] > curve["memory_MB"][0]


def test_the_bench_command_prints_the_models(capsys, monkeypatch):
    for size in ("small", "base"):
        monkeypatch.setitem(models.VARIANTS, f"{size}_patch16_160", TINY)
        monkeypatch.setitem(models.DECODERS, f"{size}_patch16_160", DECODER)
    monkeypatch.setattr(bench, "SHAPES", ((64, 64, 64),) * 4)
    monkeypatch.setattr(bench, "formulations", partial(bench.formulations, widths=(32,), tokens=20))
    assert main(["bench", "--part", "models", "--seconds", "0.01"]) == 0
    said = capsys.readouterr().out
    for words in ("matrix products: float32", "activations kept for the backward", "what experts add", "pre-training", "one MoAE layer"):
        assert words in said
    assert "frames/s" not in said


def test_the_bench_of_faces_measures_photos_and_clips_at_both_sizes():
    table = bench.faces(seconds=.01, batches=(4,))
    keys = table[["task", "pixels", "batch"]].values.tolist()
    assert keys == [[task, px, 4] for px in (64, 160) for task in ("photos", "clips")]
    assert (table["frames_per_second"] > 0).all() and (table["ratio"] > 0).all()
    assert table["frames_per_second"][0] > table["frames_per_second"][2]      # six times the pixels
    slow = bench.interleaved({"a": lambda: None, "b": lambda: time.sleep(.01)}, .05, CPU)
    assert slow["b"] > .009 > slow["a"]
