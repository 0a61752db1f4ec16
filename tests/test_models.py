"""The models against the reference, against the release's tensors, and against themselves."""
import argparse
import hashlib
import os
import re

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import s4d.models as models
import s4d.models.reference as reference
import s4d.models.vit as vit
from s4d.config import ConfigError
from s4d.models import CheckpointError, encoder_from, load_released, random_mask, to_released

NANO, MAE, SMALL = "s4d_nano_patch16_64", "s4d_mae_nano_patch16_64", "s4d_small_patch16_160"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(n: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def clips(n: int = 2, frames: int = 8, size: int = 64) -> torch.Tensor:
    return torch.randn(n, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


def stirred(model: torch.nn.Module, scale: float = 0.3) -> torch.nn.Module:
    """Random values in every parameter, so that no zero start hides a wrong term."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=draw, dtype=p.dtype) * scale
            p.copy_(noise + (0.1 if p.ndim == 1 else 0))
    return model


def test_every_promised_model_is_registered_and_constructs():
    sizes = ("nano_patch16_64", "small_patch16_160", "base_patch16_160", "large_patch16_160")
    promised = {f"{kind}_{size}" for kind in ("s4d", "s4d_mae") for size in sizes}
    assert promised == set(timm.list_models("s4d_*"))
    for name in promised:
        with torch.device("meta"):
            model = timm.create_model(name)
        assert isinstance(model, models.DualMAE if "mae" in name else models.S4D)
        assert model.pretrained_cfg["input_size"] == (3, *[int(name.rsplit("_", 1)[1])] * 2)
    with pytest.raises(ConfigError, match=f"unknown model 's4d_tiny': choose one of {NANO}"):
        models.create("s4d_tiny")


@pytest.mark.parametrize("experts", [0, 4])
def test_nano_forward_backward_save_load(tmp_path, experts):
    given = dict(image_classes=8, video_classes=11, num_experts=experts)
    model = timm.create_model(NANO, **given).train()
    assert model(images()).shape == (2, 8) and model(clips()).shape == (2, 11)
    loss = model(images()).logsumexp(-1).sum() + model.balance_loss()
    (loss + model(clips()).square().sum() + model.balance_loss()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    stirred(model, 0.05)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other = timm.create_model(NANO, **given)
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(model.eval()(clips()), other.eval()(clips()))
    out = model.forward_intermediates(clips())
    assert len(out["blocks"]) == len(model.blocks)
    assert out["embed"].shape == out["blocks"][-1].shape == (2, 64, model.embed_dim)
    assert torch.equal(out["pooled"], model.forward_features(clips()))
    image = model.head["image"].weight.clone()
    model.reset_classifier(5, "video")
    assert model(clips()).shape == (2, 5) and torch.equal(model.head["image"].weight, image)


def test_nano_autoencoder_forward_backward_and_pictures():
    model = timm.create_model(MAE)
    for x, tokens in ((images(), 16), (clips(), 64)):
        mask = random_mask(2, tokens, 0.75)
        loss = model(x, mask)
        assert loss.ndim == 0 and 0.5 < loss.item() < 5      # the targets have unit variance
        loss.backward()
        assert model.reconstruct(x, mask).shape == (2, tokens, 2 * 16 * 16 * 3)
        pixels = model.patchify(x)
        clip = x if x.ndim == 5 else x[:, :, None].expand(-1, -1, 2, -1, -1)
        back = model.unpatchify(pixels, model.encoder.grid(x))
        assert torch.allclose(back, clip * model.std + model.mean, atol=1e-6)
        assert torch.allclose(model.restore(model.standardise(pixels)[0], x), pixels, atol=1e-5)
    assert all(p.grad is not None for p in model.parameters())


def test_gradient_checkpointing_computes_blocks_again_in_the_backward_pass():
    for name, given in ((NANO, [images()]), (MAE, [images(), random_mask(2, 16, 0.5)])):
        model, calls = timm.create_model(name).train(), []
        block = getattr(model, "encoder", model).blocks[0]
        block.norm1.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        for on, count in ((False, 1), (True, 3)):
            model.set_grad_checkpointing(on)
            model(*given).sum().backward()
            assert len(calls) == count


@pytest.mark.parametrize("given, x, said", [
    ({}, torch.zeros(1, 3, 48, 48), r"2 frames of 48 x 48 px: .* of 64 x 64 px; resize"),
    ({}, torch.zeros(1, 3, 7, 64, 64), "input of 7 frames"),
    ({}, torch.zeros(1, 3, 10, 64, 64), "up to 8 frames"),
    ({}, torch.zeros(3, 64, 64), r"shape \(3, 64, 64\) .*: expected images"),
    ({}, torch.zeros(1, 8, 3, 64, 64), "or clips .* RGB"),
    ({}, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8: .* as floats"),
    (dict(img_size=60), None, "img_size 60: expected a multiple of 16, patch_size"),
    (dict(num_frames=7), None, "num_frames 7: expected a multiple of 2"),
    (dict(num_heads=3), None, "embed_dim 128: expected a multiple of 3, num_heads"),
    (dict(num_experts=4, top_k=5), None, "top_k 5: expected 1..4 for 4 experts"),
    (dict(moae_start=3), None, "moae_start 3: expected a block from 0 to 2")])
def test_wrong_arguments_and_inputs_are_a_sentence(given, x, said):
    with pytest.raises(ValueError, match=said):
        models.create(NANO, **given)(x)


@pytest.mark.parametrize("mask, said", [
    (torch.zeros(2, 16), "mask of torch.float32 .* expected booleans"),
    (torch.zeros(2, 64) > 1, r"shape \(2, 64\): expected booleans \[2, 16\]"),
    (torch.arange(32).view(2, 16) > 7, "with 8 to 16 of 16 tokens removed a row"),
    (torch.ones(2, 16) > 0, "at least one token removed and one visible")])
def test_wrong_masks_are_a_sentence(mask, said):
    with pytest.raises(ValueError, match=said):
        models.create(MAE)(images(), mask)


# --- checkpoints

# Of each released file: number of tensors, and a digest of the sorted lines "name d0xd1x...".
@pytest.mark.parametrize("name, classes, tensors, digest", [
    ("s4d_mae_small_patch16_160", None, 218, "7ac20e9f04e4d337"),
    ("s4d_mae_base_patch16_160", None, 218, "de5e77084c273ee4"),
    ("s4d_small_patch16_160", (7, 7), 380, "c4cf3b6990e561e6"),
    ("s4d_small_patch16_160", (8, 11), 380, "ec528e90e4b1e09d"),
    ("s4d_base_patch16_160", (7, 7), 380, "ef2058915ed78ab4")])
def test_names_and_shapes_are_the_releases(name, classes, tensors, digest):
    heads = dict(image_classes=classes[0], video_classes=classes[1]) if classes else {}
    with torch.device("meta"):
        state = to_released(models.create(name, **heads))
    lines = sorted(f"{n} {'x'.join(map(str, v.shape))}" for n, v in state.items())
    found = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert (len(lines), found) == (tensors, digest)


@pytest.fixture
def tiny_release(monkeypatch):
    """The smallest released size made smaller: files of some hundred kB stand for the release's."""
    tiny = dict(img_size=32, num_frames=4, patch_size=16, embed_dim=24, depth=4, num_heads=2)
    monkeypatch.setitem(models.VARIANTS, "small_patch16_160", tiny)
    return lambda kind="s4d", **kw: stirred(models.create(f"{kind}_small_patch16_160", **kw)).eval()


@pytest.mark.parametrize("wrap", [
    lambda s: {"model": s, "args": argparse.Namespace(lr=1.0), "epoch": 3},
    lambda s: {"module": s}, lambda s: s, lambda s: {"state_dict": s, "epoch": np.float64(3)},
    lambda s: {"model_ema": s, "best": np.int64(7), "curve": np.ones(3), "flag": np.bool_(True)},
    lambda s: {"state_dict": {"model": s}}, lambda s: {f"backbone.{k}": v for k, v in s.items()},
    lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()}])
def test_a_released_checkpoint_is_read_whatever_its_wrapping(tmp_path, tiny_release, wrap, caplog):
    model = tiny_release(image_classes=8, video_classes=11, num_experts=4, moae_start=1)
    torch.save(wrap(to_released(model)), tmp_path / "c.pth")
    read = load_released(tmp_path / "c.pth")
    back, given = to_released(read), to_released(model)
    assert set(back) == set(given) and all(torch.equal(v, back[k]) for k, v in given.items())
    layer = read.moae_layers()[1]
    assert (layer.capacity_factor, layer.noise_mode) == (1.0, "always") and not caplog.records


def test_a_released_dense_model_and_an_autoencoder_are_told_apart(tmp_path, tiny_release):
    dense, mae = tiny_release(num_experts=0), tiny_release("s4d_mae")
    save_file(to_released(dense), tmp_path / "c.safetensors")
    read, x = load_released(tmp_path / "c.safetensors"), images(1, 32)
    assert not read.moae_layers() and torch.equal(read(x), dense(x))
    read, mask, x = load_released(to_released(mae)), random_mask(1, 8, 0.5), clips(1, 4, 32)
    assert isinstance(read, models.DualMAE) and torch.equal(read(x, mask), mae(x, mask))


class Code:
    """Unpickling it creates a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_damaged_and_hostile_checkpoints_are_refused_in_a_sentence(tmp_path, tiny_release, caplog):
    state, path = to_released(tiny_release(num_experts=2)), tmp_path / "c.pth"

    def refused(said: str, content=None) -> None:
        if content is not None:
            torch.save(content, path)
        with pytest.raises(CheckpointError, match=said) as caught:
            load_released(path)
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)

    refused("no checkpoint at .*c.pth")
    refused("cannot read checkpoint .*c.pth: it holds posix.mkdir, and code is refused",
            {"model": state, "more": Code(str(tmp_path / "made"))})
    assert not (tmp_path / "made").exists()
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused("cannot read checkpoint .*truncated")
    refused("holds no tensors", {"model": {}})
    expert = "blocks.2.moe_layer.experts.0.fc1.weight"
    for change, said in (
            ({"head.video.bias": torch.full((7,), float("nan"))}, "head.video.bias holds NaN"),
            ({"blocks.0.norm1.weight": torch.zeros(5)},
             r"1 tensors of the wrong shape, among them blocks.0.norm1.weight \(5,\) instead of"),
            ({"fc_norm.bias": 0}, "1 of the model's 76 tensors missing, among them fc_norm.bias"),
            ({"head.image.weight": 0}, "no tensor head.image.weight in .*c.pth"),
            ({"patch_embed.proj.weight": torch.zeros(5, 3, 2, 16, 16)},
             "width 5: expected one of .24, 768, 1024"),
            ({expert: 0}, "experts of blocks.2.moae.w1 .*incomplete"),
            ({expert: torch.zeros(3, 24)}, "experts of blocks.2.moae.w1 .*several shapes")):
        refused(said, {k: v for k, v in {**state, **change}.items() if torch.is_tensor(v)})
    torch.save({**state, "extra": torch.zeros(1)}, path)
    assert load_released(path)
    assert "missing and left at their start: nothing; left out: extra" in caplog.text


def test_encoder_from_moves_the_encoder_and_says_what_is_missing(tmp_path, tiny_release, caplog):
    mae, model = tiny_release("s4d_mae"), tiny_release(num_experts=2)
    before, given = {k: v.clone() for k, v in model.state_dict().items()}, mae.state_dict()
    encoder_from(mae, model)
    assert not caplog.records
    for k, v in model.state_dict().items():
        assert torch.equal(v, given.get(f"encoder.{k}", before[k])), k
    torch.save({"model": {k.replace("encoder.", "backbone.", 1): v for k, v in given.items()}},
               tmp_path / "b.pth")
    other, x = tiny_release(num_experts=2), images(1, 32)
    encoder_from(tmp_path / "b.pth", other)
    assert torch.equal(other(x), model(x)) and len(caplog.records) == 1
    said = ("b.pth: 54 of the model's 76 tensors loaded; missing and left at their start: "
            "blocks.2.moae, blocks.3.moae, fc_norm, head.image, head.video; left out: ")
    assert said in caplog.text
    half = {k: v for k, v in given.items() if not re.search(r"\.blocks\.[12]\.", k)}
    wrong = {**given, "encoder.blocks.0.mlp.fc1.bias": torch.zeros(3)}
    for state, said in ((model.state_dict(), "no encoder weights in the checkpoint"),
                        (half, "48 of the model's 76 tensors missing, among them"),
                        (wrong, r"blocks.0.mlp.fc1.bias \(3,\) instead of \(96,\)")):
        with pytest.raises(CheckpointError, match=said):
            encoder_from(state, model)


def test_pretrained_reads_a_local_file(tmp_path, tiny_release, caplog):
    model, x = tiny_release(image_classes=8, num_experts=4), clips(1, 4, 32)
    torch.save({"model": to_released(model), "args": argparse.Namespace(lr=1)}, tmp_path / "c.pth")

    def build(**given):
        overlay = dict(file=str(tmp_path / "c.pth"))
        return timm.create_model(SMALL, pretrained=True, pretrained_cfg_overlay=overlay, **given)

    read = build(image_classes=8, num_experts=4).eval()
    assert torch.equal(read(x), model(x)) and read.moae_layers()[2].capacity_factor is None
    assert not caplog.records
    read = build(image_classes=5, num_experts=4)
    assert torch.equal(read.head["video"].weight, model.head["video"].weight)
    assert read.head["image"].out_features == 5 and "left out: head.image" in caplog.text


def test_pretrained_takes_the_file_of_the_hub(tmp_path, tiny_release, monkeypatch):
    def download(hub, filename, cache_dir):
        asked.append(filename)
        if filename == "lost.pth":
            raise OSError("no route\nmore")
        return str(tmp_path / "w.safetensors")

    model, asked = tiny_release(num_experts=8), []
    save_file(to_released(model), tmp_path / "w.safetensors")
    listed = ["README.md", "deep/vit_small_voxceleb2+affectnet_100.pt", "small_dfew.pth"]
    monkeypatch.setattr(models.checkpoints, "hf_hub_download", download)
    monkeypatch.setattr(models.checkpoints, "list_repo_files", lambda hub: listed)
    for overlay in ({}, dict(hf_hub_filename="other.pth")):
        read = timm.create_model(SMALL, pretrained=True, pretrained_cfg_overlay=overlay)
        assert torch.equal(read.fc_norm.weight, model.fc_norm.weight)
    for name, file, said in ((SMALL, "lost.pth", "cannot fetch lost.pth from .*: no route; name"),
                             (NANO, None, f"no weights of {NANO} were released: name your own")):
        with pytest.raises(CheckpointError, match=said):
            timm.create_model(name, pretrained=True,
                              pretrained_cfg_overlay=dict(hf_hub_filename=file))
    assert asked == [listed[1], "other.pth", "lost.pth"]


# --- the reference, at the paper's widths; depth and picture are small, since all blocks are alike

SHORT = dict(img_size=64, num_frames=4, depth=2)    # block 0 is dense, block 1 has experts


def twins(name: str, cls, **kw) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A model with random weights, and the reference with the same, by the release's names."""
    model = stirred(models.create(name, **SHORT, **kw), 0.05)
    size = name.removeprefix("s4d_").removeprefix("mae_")
    twin = cls(**{**models.VARIANTS[size], **SHORT, **kw})
    twin.load_state_dict(to_released(model))
    return model.double(), twin.double()


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether no difference exceeds 1e-6, in units of the expected values' size above 1."""
    return bool((found - expected).abs().max() < 1e-6 * expected.abs().max().clamp(min=1))


def losses_and_gradients_agree(model, twin, loss: torch.Tensor, expected: torch.Tensor) -> None:
    def grad(p):
        return torch.zeros_like(p) if p.grad is None else p.grad

    assert close(loss, expected)
    loss.backward()
    expected.backward()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(grad(p))
    right, found = {n: grad(p) for n, p in twin.named_parameters()}, to_released(model)
    assert set(found) == set(right) and not [n for n in right if not close(found[n], right[n])]
    assert max(g.abs().max() for g in right.values()) > 1e-3


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("size, classes", [("small", (8, 11)), ("base", (7, 7))])
def test_the_classifier_is_the_references(size, classes, released):
    """Logits, chosen experts, balance loss, gradients; with and without limit and noise."""
    model, twin = twins(f"s4d_{size}_patch16_160", reference.Classifier,
                        image_classes=classes[0], video_classes=classes[1])
    layer, plain = model.train().moae_layers()[1], twin.layers()[0]
    model.set_routing(capacity_factor=1.0 if released else None, noise=released)
    plain.capacity_factor, plain.noise = layer.capacity_factor, released
    if not released:
        layer.noise_mode = "never"                       # noise of training has its own test
    total = expected = 0
    for k, x in enumerate((images().double(), clips(2, 4).double())):
        layer.record = []
        torch.manual_seed(k)
        found = model(x)
        torch.manual_seed(k)
        right = twin(x)
        assert found.shape == (2, classes[k]) and close(found, right)
        gates = layer.record[0].flatten(0, 1)
        assert torch.equal(gates > 0, plain.gates > 0) and close(gates, plain.gates)
        dropped = int((plain.gates > 0).sum()) < 2 * len(plain.gates)
        assert dropped == released                       # the limit does drop tokens here
        y = torch.tensor([1, 5])
        total = total + F.cross_entropy(found, y) + 0.1 * model.balance_loss()
        expected = expected + F.cross_entropy(right, y) + 0.1 * twin.balance_loss()
    losses_and_gradients_agree(model, twin, total, expected)


@pytest.mark.parametrize("plain", [False, True])
def test_attention_in_bf16_is_that_of_float32_to_its_digits(monkeypatch, plain):
    monkeypatch.setattr(vit, "plain_is_faster", lambda q: plain)
    layer, x = stirred(vit.Attention(64, 2), 0.1), torch.randn(2, 30, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    monkeypatch.undo()
    expected = layer(x)                                  # by the fused kernel in float32
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("half", [False, True])
def test_chosen_experts_alone_are_all_experts_gated(half):
    """Both ways of a MoAE layer: output and every gradient, with an expert that nobody chose."""
    layer, x = stirred(models.MoAE(64, num_experts=6)).train(), torch.randn(3, 20, 64)
    with torch.no_grad():
        layer.router.bias[2] = -100.0
    layer.noise_mode, layer.capacity_factor, found = "never", 1.0, []
    for layer.grouped in (False, True, None):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = layer(leaf)
        (out.float().square().mean() + layer.balance).backward()
        grads = {n: p.grad for n, p in layer.named_parameters() if "noise" not in n}
        found.append({"out": out.detach().float(), "x": leaf.grad, **grads})
    every, chosen, default = found
    assert not every["w1"][2].any() and all(torch.equal(default[n], v) for n, v in chosen.items())
    for name, value in every.items():
        least = (0.02 if half else 1e-6) * value.abs().max().clamp(min=0.02 if half else 1)
        assert (chosen[name] - value).abs().max() < least, name


@pytest.mark.parametrize("size", ["small", "base"])
def test_the_autoencoder_is_the_references(size):
    """Reconstruction of all tokens, targets, loss and gradients of both modalities."""
    model, twin = twins(f"s4d_mae_{size}_patch16_160", reference.Autoencoder)
    total = expected = 0
    for x, tokens in ((images().double(), 16), (clips(2, 4).double(), 32)):
        mask = random_mask(2, tokens, 0.75, torch.Generator().manual_seed(3))
        with torch.no_grad():
            assert close(model.reconstruct(x, mask), twin.reconstruct(x, mask))
            assert close(model.standardise(model.patchify(x))[0], twin.targets(x))
            removed = mask.nonzero()[:, 1].view(2, -1)
            found = model.targets(x, removed).transpose(2, 3).flatten(2)       # channels last
            assert close(found.flatten(0, 1), twin.targets(x)[mask])
        total, expected = total + model(x, mask), expected + twin(x, mask)
    losses_and_gradients_agree(model, twin, total, expected)


def test_the_router_computes_in_float32_where_bf16_would_tie():
    layer, x = stirred(models.MoAE(64)).eval(), torch.randn(2, 200, 64)
    plain = layer.route(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, plain, layer.route(x))) and plain[2].dtype == torch.float32
    assert layer.bfloat16().route(x.bfloat16())[2].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_never_waits_for_the_host():
    model, mae = models.create(NANO).cuda().train(), models.create(MAE).cuda().train()
    x, mask = clips().cuda(), random_mask(2, 64, 0.75, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x).float().square().mean() + model.balance_loss()
            loss = loss + mae(x, mask, models.removed_tokens(64, 0.75))
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()


def test_masks_remove_one_count_in_every_row_and_each_place_equally_often():
    for tokens, ratio, removed in ((100, 0.9, 90), (800, 0.95, 760), (16, 0.01, 1), (2, 0.99, 1)):
        draws = (torch.Generator().manual_seed(0) for _ in range(2))
        mask, again = (random_mask(5, tokens, ratio, draw) for draw in draws)
        assert mask.dtype == torch.bool and mask.sum(1).tolist() == [removed] * 5
        assert torch.equal(mask, again)
    share = random_mask(4000, 16, 0.75, torch.Generator().manual_seed(0)).float().mean(0)
    assert (share - 0.75).abs().max() < 0.03


def test_hidden_pixels_do_not_leak():
    """A reconstruction depends on visible tokens alone, in the nano stem too."""
    mae, x = stirred(models.create(MAE), 0.05), images(1)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 5] = False                                   # row 1, column 1: pixels 16..31
    other = torch.randn_like(x)
    other[..., 16:32, 16:32] = x[..., 16:32, 16:32]
    assert torch.equal(mae.reconstruct(x, mask), mae.reconstruct(other, mask))
    other[..., 20, 20] += 1
    assert not torch.equal(mae.reconstruct(x, mask), mae.reconstruct(other, mask))


def test_noise_is_of_training_alone_unless_released():
    model, x = stirred(models.create(NANO), 0.1), images()
    with torch.no_grad():
        for train, released in ((False, False), (True, False), (False, True)):
            model.set_routing(1.0 if released else None, noise=released).train(train)
            assert torch.equal(model(x), model(x)) == (not train and not released)


def test_a_sample_does_not_depend_on_its_batch_in_paper_mode():
    """Alone, shuffled, padded with zeros; in the released mode its mates decide what is dropped."""
    model, x = stirred(models.create(NANO), 0.08).eval(), clips(4)
    order, pad = torch.tensor([2, 0, 3, 1]), torch.zeros(3, *x.shape[1:])
    with torch.no_grad():
        alone = torch.cat([model(c[None]) for c in x])
        assert alone.std(0).mean() > 0.004               # the samples do differ
        for batch, places in ((x, slice(None)), (x[order], order.argsort()),
                              (torch.cat([pad, x]), slice(3, None))):
            assert (model(batch)[places] - alone).abs().max() < 1e-6
        model.set_routing(capacity_factor=1.0)
        assert (model(x) - alone).abs().max() > 1e-3
        assert (model(x.flip(0)).flip(0) - model(x)).abs().max() > 1e-3


def test_the_balance_loss_is_one_when_balanced_and_more_when_not():
    layer = models.MoAE(4, num_experts=4, top_k=1).train()
    layer.noise_mode = "never"
    with torch.no_grad():
        layer.router.weight.copy_(8 * torch.eye(4))
        layer.router.bias.zero_()
    for tokens, low, high in ((torch.eye(4), 0.999, 1.001), (torch.eye(4)[[0] * 4], 3.9, 4.0)):
        layer(tokens[None])
        assert low < layer.balance.item() < high


def test_the_new_branch_changes_nothing_at_step_0():
    dense, mixed = models.create(NANO, num_experts=0), models.create(NANO, num_experts=8)
    missing, unexpected = mixed.load_state_dict(dense.state_dict(), strict=False)
    assert all(".moae." in k for k in missing) and not unexpected
    for x in (images(), clips()):
        assert torch.equal(dense.train()(x), mixed.train()(x))


def test_an_image_is_a_clip_of_its_frame_repeated_and_the_stem_its_convolutions():
    model, x = stirred(models.create(NANO), 0.05).eval(), images()
    clip = x[:, :, None].repeat(1, 1, 2, 1, 1)
    assert torch.equal(model.forward_features(x), model.forward_features(clip))
    embed = stirred(model.patch_embed, 0.1)
    assert torch.allclose(embed(clip), embed.proj(clip).flatten(2).transpose(1, 2), atol=1e-4)
