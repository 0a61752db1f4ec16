"""The models against references written from the paper's equations, against the release's tensors, and against themselves."""
from __future__ import annotations

import argparse
import hashlib
import math
import os

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import s4d.models as models
from s4d.config import ConfigError
from s4d.models import CheckpointError, count_parameters, encoder_from, load_released, random_mask, to_released
from s4d.models.mae import DualMAE
from s4d.models.moae import MoAE
from s4d.models.s4d import S4D, Attention
from s4d.models.tokens import sincos

# Number of tensors and a digest of the sorted lines "name d0xd1x..." of each file that the authors released.
RELEASED = {
    "pretrain_small": (218, "7ac20e9f04e4d337"),
    "pretrain_base": (218, "de5e77084c273ee4"),
    "small_cap1_h77": (380, "c4cf3b6990e561e6"),
    "small_cap1_h811": (380, "ec528e90e4b1e09d"),
    "base_cap1_h77": (380, "ef2058915ed78ab4"),
}
TINY = dict(size=32, frames=4, patch=16, width=16, depth=2, heads=2)
NANO = "s4d_nano_patch16_64"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(n: int = 2, size: int = 64, seed: int = 0, **kw) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed), **kw)


def clips(n: int = 2, frames: int = 8, size: int = 64, seed: int = 1, **kw) -> torch.Tensor:
    return torch.randn(n, 3, frames, size, size, generator=torch.Generator().manual_seed(seed), **kw)


def stirred(model: torch.nn.Module, scale: float = 0.3, seed: int = 0) -> torch.nn.Module:
    """Random values in every parameter, so that no zero start hides a wrong term."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw, dtype=p.dtype) * scale + (1 if p.ndim == 1 else 0) * 0.1)
    return model


# --- registry and shapes

@pytest.mark.parametrize("name", timm.list_models("s4d_*"))
def test_every_registered_model_constructs(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert isinstance(model, DualMAE if "mae" in name else S4D)
    assert model.pretrained_cfg["input_size"] == (3, *[int(name.rsplit("_", 1)[1])] * 2)


def test_registry_holds_what_is_promised():
    promised = {f"{kind}_{v}" for kind in ("s4d", "s4d_mae") for v in
                ("nano_patch16_64", "small_patch16_160", "base_patch16_160", "large_patch16_160")}
    assert promised <= set(timm.list_models("s4d_*"))
    with pytest.raises(ConfigError, match="unknown model 's4d_tiny': choose one of s4d_nano_patch16_64"):
        models.create("s4d_tiny")


@pytest.mark.parametrize("experts", [0, 4])
def test_nano_forward_backward_save_load(tmp_path, experts):
    model = timm.create_model(NANO, image_classes=8, video_classes=11, experts=experts).train()
    assert model(images()).shape == (2, 8) and model(clips()).shape == (2, 11)
    assert model.forward_features(clips()).shape == (2, model.width)
    loss = model(images()).logsumexp(-1).sum() + model.balance_loss()
    (loss + model(clips()).square().sum() + model.balance_loss()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    stirred(model, 0.05)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other = timm.create_model(NANO, image_classes=8, video_classes=11, experts=experts)
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(model.eval()(clips()), other.eval()(clips()))


def test_nano_autoencoder_forward_backward():
    model = timm.create_model("s4d_mae_nano_patch16_64")
    for x, tokens in ((images(), 16), (clips(), 64)):
        mask = random_mask(2, tokens, 0.75)
        loss = model(x, mask)
        assert loss.ndim == 0 and 0.5 < loss.item() < 5      # the targets have unit variance
        loss.backward()
        assert model.reconstruct(x, mask).shape == (2, tokens, 2 * 16 * 16 * 3)
    assert all(p.grad is not None for p in model.parameters())


def test_forward_intermediates_end_in_the_same_logits():
    model = stirred(timm.create_model(NANO), 0.05).eval()
    out = model.forward_intermediates(clips())
    assert len(out["blocks"]) == len(model.blocks) and out["embed"].shape == out["blocks"][-1].shape == (2, 64, model.width)
    assert torch.allclose(out["logits"], model(clips()), atol=1e-6)


def test_gradient_checkpointing_changes_nothing():
    model = timm.create_model(NANO, experts=0).train()
    found = []
    for on in (False, True):
        model.set_grad_checkpointing(on)
        model.zero_grad()
        model(images()).square().sum().backward()
        found.append(model.blocks[0].mlp.fc1.weight.grad.clone())
    assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize("x, said", [
    (torch.zeros(1, 3, 48, 48), r"2 frames of 48 x 48 px: .* of 64 x 64 px; resize"), (torch.zeros(1, 3, 7, 64, 64), "input of 7 frames"),
    (torch.zeros(1, 3, 10, 64, 64), "up to 8 frames"), (torch.zeros(1, 1, 64, 64), "expected 3 channels"),
    (torch.zeros(3, 64, 64), r"shape \(3, 64, 64\): expected images"), (torch.zeros(1, 8, 3, 64, 64), "expected 3 channels")])
def test_wrong_input_is_a_sentence(x, said):
    with pytest.raises(ValueError, match=said):
        timm.create_model(NANO)(x)


def test_wrong_sizes_are_a_sentence():
    with pytest.raises(ConfigError, match="multiple of the patch"):
        models.create(NANO, size=60)
    with pytest.raises(ConfigError, match="top_k 5: expected 1..4 for 4 experts"):
        models.create(NANO, experts=4, top_k=5)
    mae = models.create("s4d_mae_nano_patch16_64")
    with pytest.raises(ValueError, match=r"mask of shape \(2, 64\) .* expected \[2, 16\]"):
        mae(images(), random_mask(2, 64, 0.5))
    uneven = random_mask(2, 16, 0.5)
    uneven[0, :] = True
    with pytest.raises(ValueError, match="with 8 to 16 tokens removed a row"):
        mae(images(), uneven)


# --- the release's tensors

def released_model(variant: str) -> torch.nn.Module:
    with torch.device("meta"):
        if variant.startswith("pretrain"):
            return models.create(f"s4d_mae_{variant.split('_')[1]}_patch16_160")
        size, _, heads = variant.split("_")
        image, video = {"h77": (7, 7), "h811": (8, 11)}[heads]
        return models.create(f"s4d_{size}_patch16_160", image_classes=image, video_classes=video)


@pytest.mark.parametrize("variant", RELEASED)
def test_names_and_shapes_are_the_releases(variant):
    lines = sorted(f"{n} {'x'.join(map(str, v.shape))}" for n, v in to_released(released_model(variant)).items())
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]) == RELEASED[variant]


def test_number_of_parameters_of_base():
    model = released_model("base_cap1_h77")
    assert count_parameters(model) == 100_513_646
    assert count_parameters(model, r"\.moae\.") == 14_275_680
    assert count_parameters(models.create("s4d_base_patch16_160", experts=0)) == 100_513_646 - 14_275_680


@pytest.fixture
def tiny_release(monkeypatch):
    """The registry's smallest released size made smaller, so that files of a few hundred kB stand for the release's."""
    for table, spec in ((models.VARIANTS, dict(size=32, frames=4, patch=16, width=24, depth=4, heads=2)),
                        (models.DECODERS, dict(decoder_width=8, decoder_depth=1, decoder_heads=2))):
        monkeypatch.setitem(table, "small_patch16_160", spec)
    return lambda kind="s4d", **kw: stirred(models.create(f"{kind}_small_patch16_160", **kw)).eval()


@pytest.mark.parametrize("wrap", [lambda s: {"model": s, "args": argparse.Namespace(lr=1.0), "epoch": 3}, lambda s: {"module": s},
                                  lambda s: s, lambda s: {f"module.{k}": v for k, v in s.items()}])
def test_a_released_checkpoint_is_read_whatever_its_wrapping(tmp_path, tiny_release, wrap):
    model = tiny_release(image_classes=8, video_classes=11, experts=4, moae_from=1)
    torch.save(wrap(to_released(model)), tmp_path / "c.pth")
    read = load_released(tmp_path / "c.pth")
    assert list(read.moae_layers()) == [1, 2, 3] and read.moae_layers()[1].experts == 4
    for name, value in model.state_dict().items():
        assert torch.equal(value, read.state_dict()[name]), name
    back = to_released(read)
    assert set(back) == set(to_released(model)) and all(torch.equal(v, back[k]) for k, v in to_released(model).items())
    assert read.moae_layers()[1].capacity_factor == 1.0 and read.moae_layers()[1].noisy == "always"


def test_a_released_dense_model_and_an_autoencoder_are_told_apart(tmp_path, tiny_release):
    dense, mae = tiny_release(experts=0), tiny_release("s4d_mae")
    save_file(to_released(dense), tmp_path / "c.safetensors")
    read = load_released(tmp_path / "c.safetensors")
    assert isinstance(read, S4D) and not read.moae_layers() and torch.equal(read(images(1, 32)), dense(images(1, 32)))
    read, mask = load_released(to_released(mae)), random_mask(1, 8, 0.5)
    assert isinstance(read, DualMAE) and torch.equal(read(clips(1, 4, 32), mask), mae(clips(1, 4, 32), mask))


class Code:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_damaged_and_hostile_checkpoints_are_refused_in_a_sentence(tmp_path, tiny_release):
    model, path = tiny_release(experts=2), tmp_path / "c.pth"
    state = to_released(model)

    def refused(said: str, content=None) -> None:
        if content is not None:
            torch.save(content, path)
        with pytest.raises(CheckpointError, match=said) as caught:
            load_released(path)
        assert "\n" not in str(caught.value)

    refused("no checkpoint at .*c.pth")
    refused("cannot read checkpoint .*c.pth: .*refused", {"model": state, "more": Code(str(tmp_path / "made"))})
    assert not (tmp_path / "made").exists()
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused("cannot read checkpoint .*truncated")
    path.write_bytes(b"")
    refused("cannot read checkpoint")
    refused("holds no tensors", [1, 2])
    refused("holds no tensors", {"model": {}})
    refused("tensor head.video.bias holds NaN", {**state, "head.video.bias": torch.full((7,), float("nan"))})
    refused(r"1 tensors of the wrong shape, among them blocks.0.norm1.weight \(5,\) instead of \(24,\)",
            {**state, "blocks.0.norm1.weight": torch.zeros(5)})
    refused("2 tensors missing, among them blocks.3.mlp.fc1.weight, fc_norm.bias",
            {k: v for k, v in state.items() if k not in ("blocks.3.mlp.fc1.weight", "fc_norm.bias")})
    refused("1 tensors unexpected, among them extra", {**state, "extra": torch.zeros(1)})
    refused("no tensor head.image.weight", {k: v for k, v in state.items() if not k.startswith("head.image")})
    refused("no tensor patch_embed.proj.weight", {"weight": torch.zeros(2)})
    refused("width 5: expected one of 24, 768, 1024", {**state, "patch_embed.proj.weight": torch.zeros(5, 3, 2, 16, 16)})
    expert = "blocks.2.moe_layer.experts.0.fc1.weight"
    refused("experts of blocks.2.moae.w1 .*incomplete", {k: v for k, v in state.items() if k != expert})
    refused("experts of blocks.2.moae.w1 .*all of one shape", {**state, expert: torch.zeros(3, 24)})
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    refused("cannot read checkpoint .*c.safetensors")


def test_encoder_from_moves_the_encoder_and_reports(tmp_path, tiny_release):
    mae, model = tiny_release("s4d_mae"), tiny_release(experts=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = encoder_from(mae, model)
    assert set(report["set"]) == {k.removeprefix("encoder.") for k in mae.state_dict() if k.startswith("encoder.")
                                  and not k.startswith("encoder.norm.")}
    assert set(report["set"]) | set(report["fresh"]) == set(before) and not set(report["set"]) & set(report["fresh"])
    assert {k.split(".")[0] for k in report["fresh"] if ".moae." not in k} == {"fc_norm", "head"}
    assert {"encoder.norm.weight", "mask_token"} <= set(report["unused"]) and "encoder.blocks.0.norm1.bias" not in report["unused"]
    for k, v in model.state_dict().items():
        assert torch.equal(v, mae.state_dict()[f"encoder.{k}"] if k in report["set"] else before[k]), k
    torch.save({"model": {k.replace("encoder.", "backbone.", 1): v for k, v in mae.state_dict().items()}}, tmp_path / "b.pth")
    other = tiny_release(experts=2)
    assert set(encoder_from(tmp_path / "b.pth", other)["set"]) == set(report["set"])
    assert torch.equal(other.forward_features(images(1, 32)), model.forward_features(images(1, 32)))


def test_encoder_from_refuses_what_does_not_fit(tiny_release):
    mae, model = tiny_release("s4d_mae").state_dict(), tiny_release(experts=2)
    with pytest.raises(CheckpointError, match="no encoder weights"):
        encoder_from(model.state_dict(), model)
    with pytest.raises(CheckpointError, match=r"encoder tensors are not in the checkpoint, among them blocks.1."):
        encoder_from({k: v for k, v in mae.items() if ".blocks.1." not in k}, model)
    with pytest.raises(CheckpointError, match=r"tensor blocks.0.mlp.fc1.bias: \(3,\) in the checkpoint, \(96,\) in the model"):
        encoder_from({**mae, "encoder.blocks.0.mlp.fc1.bias": torch.zeros(3)}, model)


# --- a reference in float64, in the words of the paper

def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * w + b


def naive_attention(x: torch.Tensor, p: dict, heads: int) -> torch.Tensor:
    """Tokens `[L, D]`, one head after another; the query and value biases are added apart, the key has none."""
    width = x.shape[1]
    wq, wk, wv = p["qkv.weight"].split(width)
    q, k, v = x @ wq.T + p["q_bias"], x @ wk.T, x @ wv.T + p["v_bias"]
    h, out = width // heads, torch.zeros_like(x)
    for i in range(heads):
        part = slice(i * h, (i + 1) * h)
        for a in range(len(x)):
            scores = torch.stack([(q[a, part] * k[b, part]).sum() / math.sqrt(h) for b in range(len(x))])
            weights = scores.exp() / scores.exp().sum()
            out[a, part] = sum(weights[b] * v[b, part] for b in range(len(x)))
    return out @ p["proj.weight"].T + p["proj.bias"]


def naive_moae(x: torch.Tensor, p: dict, k: int, room: dict | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens `[N, D]` one by one -> output and gates `[N, E]`; `room` counts down what each expert may still take."""
    experts = len(p["w1"])
    out, gates = torch.zeros_like(x), x.new_zeros(len(x), experts)
    for n, token in enumerate(x):
        scores = p["router.weight"] @ token + p["router.bias"]
        best = sorted(range(experts), key=lambda e: -scores[e].item())[:k]
        total = sum(scores[e].exp() for e in best)
        for e in best:
            if room is not None:
                room[e] -= 1
                if room[e] < 0:
                    continue
            gates[n, e] = scores[e].exp() / total
            hidden = gelu(p["w1"][e] @ token + p["b1"][e])
            out[n] += gates[n, e] * (p["w2"][e] @ hidden + p["b2"][e])
    return out, gates


def naive_cut(clip: torch.Tensor, patch: int) -> list[torch.Tensor]:
    """A clip `[3, T, H, W]` -> tubelets `[3, 2, P, P]` in time, row, column order."""
    _, t, h, w = clip.shape
    return [clip[:, i:i + 2, r:r + patch, c:c + patch] for i in range(0, t, 2) for r in range(0, h, patch) for c in range(0, w, patch)]


def naive_position(p: int, width: int) -> torch.Tensor:
    angles = [p / 10000 ** (2 * (j // 2) / width) for j in range(width)]
    return torch.tensor([math.sin(a) if j % 2 == 0 else math.cos(a) for j, a in enumerate(angles)]).double()


def naive_positions(length: int, width: int) -> torch.Tensor:
    return torch.stack([naive_position(p, width) for p in range(length)])


def sub(state: dict, prefix: str) -> dict:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def naive_blocks(x: torch.Tensor, state: dict, heads: int, k: int = 2) -> torch.Tensor:
    """Tokens `[L, D]` through all blocks."""
    for i in range(1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))):
        p = sub(state, f"blocks.{i}.")
        x = x + naive_attention(layer_norm(x, p["norm1.weight"], p["norm1.bias"]), sub(p, "attn."), heads)
        n = layer_norm(x, p["norm2.weight"], p["norm2.bias"])
        out = gelu(n @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]) @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
        if "moae.w1" in p:
            out = out + naive_moae(n, sub(p, "moae."), k)[0]
        x = x + out
    return x


def naive_embed(clip: torch.Tensor, state: dict, patch: int = 16) -> torch.Tensor:
    w, b = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    return torch.stack([(w * tube).sum((1, 2, 3, 4)) + b + naive_position(p, len(b)) for p, tube in enumerate(naive_cut(clip, patch))])


def test_attention_is_the_papers():
    layer = stirred(Attention(12, 3).double())
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected = torch.stack([naive_attention(s, layer.state_dict(), 3) for s in x])
    assert (layer(x) - expected).abs().max() < 1e-9


def test_moae_and_its_balance_loss_are_the_papers():
    layer = stirred(MoAE(12, experts=5, top_k=2).double()).eval()
    layer.noisy = "never"
    x = torch.randn(3, 7, 12, dtype=torch.float64)
    expected, gates = naive_moae(x.flatten(0, 1), layer.state_dict(), 2)
    found = layer(x).flatten(0, 1)
    assert (found - expected).abs().max() < 1e-9 and (layer.route(x)[0].flatten(0, 1) - gates).abs().max() < 1e-9
    layer.train()(x)
    scores = x.flatten(0, 1) @ layer.router.weight.T + layer.router.bias
    probability = (scores.exp() / scores.exp().sum(-1, keepdim=True)).mean(0)
    share = torch.tensor([(gates[:, e] > 0).sum().item() / (2 * len(gates)) for e in range(5)])
    assert abs(layer.balance_loss().item() - 5 * sum(share[e].item() * probability[e].item() for e in range(5))) < 1e-9


@pytest.mark.parametrize("video", [False, True])
def test_the_whole_classifier_is_the_papers(video):
    model = stirred(S4D(experts=4, **TINY)).double().eval()
    model.positions = naive_positions(8, 16)
    x = clips(2, 4, 32, dtype=torch.float64) if video else images(2, 32, dtype=torch.float64)
    state, head = model.state_dict(), "video" if video else "image"
    for sample, found in zip(x, model(x)):
        clip = sample if video else torch.stack([sample, sample], 1)
        tokens = naive_blocks(naive_embed(clip, state), state, heads=2)
        pooled = layer_norm(tokens.mean(0), state["fc_norm.weight"], state["fc_norm.bias"])
        assert (state[f"head.{head}.weight"] @ pooled + state[f"head.{head}.bias"] - found).abs().max() < 1e-9


@pytest.mark.parametrize("video", [False, True])
def test_the_autoencoders_loss_is_the_papers(video):
    model = stirred(DualMAE(decoder_width=8, decoder_depth=1, decoder_heads=2, **TINY), 0.2).double()
    model.encoder.positions, model.decoder.positions = naive_positions(8, 16), naive_positions(8, 8)
    x = clips(2, 4, 32, dtype=torch.float64) if video else images(2, 32, dtype=torch.float64)
    mask = random_mask(2, 8 if video else 4, 0.5, torch.Generator().manual_seed(3))
    encoder, decoder, state = sub(model.state_dict(), "encoder."), sub(model.state_dict(), "decoder."), model.state_dict()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    model.mean, model.std = mean.view(1, 3, 1, 1, 1), std.view(1, 3, 1, 1, 1)      # the buffers are of single precision
    errors = []
    for sample, hidden in zip(x, mask):
        clip = sample if video else torch.stack([sample, sample], 1)
        seen = [i for i in range(len(hidden)) if not hidden[i]]
        latent = naive_blocks(naive_embed(clip, encoder)[seen], encoder, heads=2)
        latent = layer_norm(latent, encoder["norm.weight"], encoder["norm.bias"]) @ state["encoder_to_decoder.weight"].T
        full = [state["mask_token"][0, 0]] * len(hidden)
        for place, token in zip(seen, latent):
            full[place] = token
        full = torch.stack([token + naive_position(p, 8) for p, token in enumerate(full)])
        full = layer_norm(naive_blocks(full, decoder, heads=2), decoder["norm.weight"], decoder["norm.bias"])
        predicted = full @ decoder["head.weight"].T + decoder["head.bias"]
        pixels = clip * std.view(3, 1, 1, 1) + mean.view(3, 1, 1, 1)
        for p, tube in enumerate(naive_cut(pixels, 16)):
            if hidden[p]:
                target = torch.stack([(c - c.mean()) / (c.var() + 1e-6).sqrt() for c in tube], -1)     # (t, row, column, channel)
                errors.append(((predicted[p] - target.flatten()) ** 2).mean())
    assert abs(model(x, mask).item() - torch.stack(errors).mean().item()) < 1e-9


def test_positions_are_the_papers():
    assert (sincos(800, 12).double() - naive_positions(800, 12)).abs().max() < 1e-6
    model = models.create(NANO)
    assert model.positions.shape == (64, model.width) and "positions" not in model.state_dict()


# --- invariants

@pytest.mark.parametrize("tokens, ratio, removed", [
    (100, 0.9, 90), (800, 0.95, 760), (16, 0.9, 14), (64, 0.95, 60), (16, 0.01, 1), (2, 0.99, 1)])
def test_masks_remove_the_same_count_in_every_row(tokens, ratio, removed):
    mask = random_mask(5, tokens, ratio, torch.Generator().manual_seed(0))
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == [removed] * 5
    assert torch.equal(mask, random_mask(5, tokens, ratio, torch.Generator().manual_seed(0)))
    if tokens > 50:
        assert len({tuple(row) for row in mask.tolist()}) == 5


def test_masks_remove_every_place_equally_often():
    share = random_mask(4000, 16, 0.75, torch.Generator().manual_seed(0)).float().mean(0)
    assert (share - 0.75).abs().max() < 0.03
    with pytest.raises(ValueError, match="mask ratio 1.0: expected a share between 0 and 1"):
        random_mask(1, 16, 1.0)


def test_hidden_pixels_do_not_leak():
    """A reconstruction depends on visible tokens alone, in the nano variant's non-linear stem too."""
    mae, x = stirred(models.create("s4d_mae_nano_patch16_64"), 0.05), images(1)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 5] = False                                   # row 1, column 1: pixels 16..31 of both axes
    other = torch.randn_like(x)
    other[..., 16:32, 16:32] = x[..., 16:32, 16:32]
    assert torch.equal(mae.reconstruct(x, mask), mae.reconstruct(other, mask))
    other[..., 20, 20] += 1
    assert not torch.equal(mae.reconstruct(x, mask), mae.reconstruct(other, mask))


def test_pictures_come_back_from_their_tokens():
    mae = models.create("s4d_mae_nano_patch16_64")
    for x in (images(), clips()):
        tokens = mae.patchify(x)
        pixels = (x if x.ndim == 5 else x[:, :, None].expand(-1, -1, 2, -1, -1)) * mae.std + mae.mean
        assert torch.allclose(mae.unpatchify(tokens, mae.encoder.grid(x)), pixels, atol=1e-6)
        assert torch.allclose(mae.restore(mae.standardise(tokens)[0], x), tokens, atol=1e-5)


@pytest.mark.parametrize("experts, k", [(8, 2), (4, 1), (3, 3)])
def test_gates_sum_to_one_over_k_experts(experts, k):
    layer = stirred(MoAE(16, experts, k)).train()
    gates, chosen, _ = layer.route(torch.randn(4, 9, 16))
    assert torch.allclose(gates.sum(-1), torch.ones(4, 9)) and ((gates > 0).sum(-1) == k).all() and torch.equal(chosen, gates > 0)


def test_noise_is_of_training_alone_unless_released():
    model, x = stirred(models.create(NANO), 0.1), images()
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        assert not torch.equal(model.train()(x), model(x))
        model.set_routing(capacity_factor=1.0, noise=True).eval()
        assert not torch.equal(model(x), model(x))
        model.set_routing()
        assert torch.equal(model(x), model(x))


def test_a_sample_does_not_depend_on_its_batch_in_paper_mode():
    model, x = stirred(models.create(NANO), 0.05).eval(), clips(4)
    with torch.no_grad():
        alone = torch.cat([model(c[None]) for c in x])
        assert torch.allclose(model(x), alone, atol=1e-5) and torch.allclose(model(x.flip(0)).flip(0), alone, atol=1e-5)
        model.set_routing(capacity_factor=1.0)           # the released code: mates and their order decide who is dropped
        assert not torch.allclose(model(x), alone, atol=1e-3) and not torch.allclose(model(x.flip(0)).flip(0), model(x), atol=1e-3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25])
def test_capacity_drops_what_the_loop_drops(factor):
    layer = stirred(MoAE(12, experts=4, top_k=2).double()).eval()
    layer.capacity_factor = factor
    x = torch.randn(3, 10, 12, dtype=torch.float64)
    room = dict.fromkeys(range(4), int(30 * 2 / 4 * factor))
    expected, gates = naive_moae(x.flatten(0, 1), layer.state_dict(), 2, room)
    assert min(room.values()) < 0 and (gates.sum(-1) < 0.999).any()      # some tokens were dropped
    assert (layer(x).flatten(0, 1) - expected).abs().max() < 1e-9
    assert (layer.route(x)[0].flatten(0, 1) - gates).abs().max() < 1e-9


def test_the_balance_loss_is_one_when_balanced_and_more_when_not():
    layer = MoAE(4, experts=4, top_k=1).train()
    layer.noisy = "never"
    with pytest.raises(RuntimeError, match="no balance loss yet"):
        layer.balance_loss()
    with torch.no_grad():
        layer.router.weight.copy_(8 * torch.eye(4))
        layer.router.bias.zero_()
    layer(torch.eye(4)[None])
    assert abs(layer.balance_loss().item() - 1) < 1e-6
    layer(torch.eye(4)[:1].expand(1, 4, 4))
    assert layer.balance_loss().item() > 3.9


def test_the_new_branch_changes_nothing_at_step_0():
    torch.manual_seed(0)
    dense, mixed = models.create(NANO, experts=0), models.create(NANO, experts=8)
    missing, unexpected = mixed.load_state_dict(dense.state_dict(), strict=False)
    assert all(".moae." in k for k in missing) and not unexpected
    for x in (images(), clips()):
        assert torch.equal(dense.eval()(x), mixed.eval()(x)) and torch.equal(dense.train()(x), mixed.train()(x))


def test_an_image_is_a_clip_of_its_frame_repeated():
    model, x = stirred(models.create(NANO), 0.05).eval(), images()
    clip = x[:, :, None].repeat(1, 1, 2, 1, 1)
    assert torch.equal(model.embed(x), model.embed(clip)) and model.embed(x).shape == (2, 16, model.width)
    assert torch.equal(model.forward_features(x), model.forward_features(clip))


def test_the_stem_is_its_convolutions():
    embed = stirred(models.create(NANO).patch_embed, 0.1)
    x = clips()
    assert torch.allclose(embed(x), embed.proj(x).flatten(2).transpose(1, 2), atol=1e-4)
    plain = stirred(S4D(**TINY).patch_embed)
    x = clips(2, 4, 32)
    assert torch.allclose(plain(x), plain.proj(x).flatten(2).transpose(1, 2), atol=1e-3)


def test_reset_classifier_replaces_one_head():
    model = models.create(NANO)
    image = model.head["image"].weight.clone()
    model.reset_classifier(11, "video")
    assert model(clips()).shape == (2, 11) and torch.equal(model.head["image"].weight, image)
    assert model.get_classifier("video").out_features == 11


def test_eight_samples_are_learned():
    torch.manual_seed(0)
    model = models.create(NANO, experts=4).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y, v, w = images(4), torch.tensor([0, 1, 2, 3]), clips(4), torch.tensor([6, 5, 4, 3])
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(x), y) + 1e-3 * model.balance_loss()
        loss = loss + torch.nn.functional.cross_entropy(model(v), w) + 1e-3 * model.balance_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert loss.item() < 0.2 and (model.eval()(x).argmax(1) == y).all() and (model(v).argmax(1) == w).all()


def test_the_autoencoder_learns_eight_samples():
    torch.manual_seed(0)
    mae = models.create("s4d_mae_nano_patch16_64").train()
    optimizer = torch.optim.AdamW(mae.parameters(), lr=2e-3)
    ramp = torch.linspace(-2, 2, 64)
    x = torch.stack([ramp * math.cos(i) + ramp[:, None] * math.sin(i) for i in range(8)])[:, None].expand(-1, 3, -1, -1)
    mask = random_mask(8, 16, 0.5, torch.Generator().manual_seed(0))
    first = mae(x, mask).item()
    for _ in range(60):
        loss = mae(x, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first
