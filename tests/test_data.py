"""From files to batches: the cache, the schedule, augmentation and test views."""
import hashlib
import os
import pickle
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import cut_off, damage, put, smooth, write_image, write_video
from PIL import Image
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP
from torchvision.transforms import InterpolationMode, v2

from s4d.data import MediaError, cache, packed, read_clip, transforms
from s4d.data.dataset import Joint, Key, Samples, draw_order, epoch_plan, loader, to_model
from s4d.data.media import read_frames
from s4d.data.transforms import augment, eval_views, normalise, pretrain_transform, train_transform
from s4d.files import OutputError


@pytest.fixture(scope="module")
def clips_root(tmp_path_factory):
    """Three clips of 12 frames, one of them damaged in its middle."""
    root = tmp_path_factory.mktemp("clips")
    for i in range(3):
        write_video(root / f"{i}.mp4", i, 12, gop=4)
    damage(root / "1.mp4", 0.5, 0.6)
    return root


def table_of(root: Path, pattern: str = "*.mp4", label: str | None = "fear") -> pd.DataFrame:
    rows = [(p.name, label, None, "train") for p in sorted(root.glob(pattern))]
    return pd.DataFrame(rows, columns=["path", "label", "subject", "split"], dtype=object)


def samples(root: Path, sampling_rate: int = 1, **options) -> Samples:
    """All clips below a folder, four frames of 32 px."""
    return Samples(table_of(root), root, "video", 32, 4, sampling_rate, **options)


def test_the_cache_holds_the_files_pixels_and_names_broken_ones(clips_root):
    table = table_of(clips_root)
    whole = packed(table, clips_root, 32)
    assert list(whole.unreadable) == ["1.mp4"] and "damaged" in whole.unreadable["1.mp4"]
    assert [frames for frames, *_ in whole.shapes] == [12, 0, 12]
    wanted = read_clip(clips_root / "2.mp4", [3, 0, 3], size=32)
    assert torch.equal(whole.clip(2, [3, 0, 3]), wanted)
    with pytest.raises(MediaError, match="1.mp4 cannot be read: .*damaged"):
        whole.clip(1)
    assert len(pickle.dumps(whole)) < 10_000              # travels to workers without its pixels
    stamp = whole.file.stat().st_mtime_ns
    again = packed(table.assign(label="anger"), clips_root, 32)
    assert again.file == whole.file and whole.file.stat().st_mtime_ns == stamp
    part = packed(table[2:], clips_root, 32)              # a split is found inside the whole
    assert part.file == whole.file and torch.equal(part.clip(0), whole.clip(2))
    assert whole.file.stat().st_mode & 0o044 == 0o044     # a shared cache serves other users too


def test_a_cache_that_does_not_fit_the_files_is_made_again(tmp_path, monkeypatch):
    path, key = write_video(tmp_path / "0.mp4", 0, 12), Key("video", 0, 1)

    def made(size=32, **options):
        return packed(table_of(tmp_path), tmp_path, size, **options).file

    def same():
        both = samples(tmp_path, cache=True), samples(tmp_path)
        assert torch.equal(*(data.batch([key])["clip"] for data in both))
    for harm in (lambda file: cut_off(file, 0.9), Path.unlink):
        data = samples(tmp_path, cache=True)
        harm(data.packed.file)
        (name, cause), = data.batch([key])["unreadable"]
        assert name == "0.mp4" and re.search("packed cache .* is missing or cut short", cause)
        same()
    cut_off(made().with_suffix(".json"), 0.5)
    files = [made(), made(16), made(crop_box=(0, 0, 48, 48))]
    write_video(path, 1, 12)
    files.append(made())
    same()
    os.utime(path, ns=(0, 0))                             # changed without a change of its size
    files.append(made())
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    files.append(made())
    assert len(set(files)) == 6 and made() == files[-1]


def test_a_full_disk_leaves_nothing_behind_and_is_a_sentence(tmp_path, monkeypatch):
    write_video(tmp_path / "0.mp4", 0, 6)

    def full(source, target):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(
            OutputError, match="cannot write .*: no space left on device; .* cache=False"):
        patch.setattr(os, "replace", full)
        packed(table_of(tmp_path), tmp_path, 32)
    assert [file.suffix for file in (tmp_path / ".cache").iterdir()] in ([], [".lock"])
    done = packed(table_of(tmp_path), tmp_path, 32)
    assert torch.equal(done.clip(0), read_clip(tmp_path / "0.mp4", size=32))
    draft = put(done.file.with_name(f".tmp-0-{done.file.name}"), "left by a killed process")
    done.file.with_suffix(".json").unlink()
    assert packed(table_of(tmp_path), tmp_path, 32).file == done.file and not draft.exists()


def test_of_callers_at_once_one_makes_the_cache_and_none_sees_half_of_it(tmp_path, monkeypatch):
    for i in range(3):
        write_video(tmp_path / f"{i}.mp4", i, 6)
    table, decoded, read = table_of(tmp_path), [], cache.read_frames

    def slow(path, **options):
        decoded.append(path.name)
        time.sleep(0.05)
        return read(path, **options)
    monkeypatch.setattr(cache, "read_frames", slow)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: packed(table, tmp_path, 32), range(3)))
    assert sorted(decoded) == ["0.mp4", "1.mp4", "2.mp4"] and len({p.file for p in found}) == 1
    assert all(torch.equal(p.clip(2), read_clip(tmp_path / "2.mp4", size=32)) for p in found)


def test_media_keep_their_ratio_and_test_crops_differ(tmp_path):
    write_video(tmp_path / "0.mp4", 0, 6, 96, 64)
    write_video(tmp_path / "1.mp4", 1, 6, 64, 64)
    wide = read_clip(tmp_path / "0.mp4", [1, 2, 3, 4], size=32, aspect=True)
    for cached in (False, True):
        data = samples(tmp_path, test_segments=1, cache=cached)
        assert torch.equal(data.batch([Key("video", 0, 0)])["clip"][0], wide[..., 8:40])
        data.test_crops = 2
        batch = data.batch([Key("video", row, 0) for row in (0, 1)])
        assert batch["row"].tolist() == [0, 0, 1] and batch["label"].tolist() == [4] * 3
        assert torch.equal(batch["clip"][:2], torch.stack([wide[..., :32], wide[..., 16:]]))


@pytest.mark.parametrize("segments", [0, 2])
def test_clips_depend_on_their_key_alone_with_and_without_a_cache(clips_root, segments):
    options = dict(test_segments=segments, transform=train_transform(32), repeat_aug=2)
    plain, cached = (samples(clips_root, 2, cache=c, **options) for c in (False, True))
    for key in (Key("video", 0, 5), Key("video", 2, 6, view=min(1, segments))):
        clip = plain.batch([key])["clip"]
        torch.manual_seed(key.seed + 1)
        state = torch.get_rng_state()
        assert torch.equal(clip, cached.batch([key])["clip"]) and clip.shape == (2, 4, 3, 32, 32)
        assert torch.equal(torch.get_rng_state(), state) and not torch.equal(clip[0], clip[1])
        assert not torch.equal(plain.batch([replace(key, seed=10)])["clip"], clip)


@pytest.mark.parametrize("cached", [False, True])
def test_a_batch_leaves_unreadable_samples_out_and_names_them(clips_root, cached):
    data = samples(clips_root, 2, cache=cached)
    batch = data.batch([Key("video", row, 0) for row in range(3)])
    assert batch["row"].tolist() == [0, 2] and batch["label"].tolist() == [4, 4]
    assert [path for path, _ in batch["unreadable"]] == ["1.mp4"]
    assert batch["unreadable_rows"] == [1]
    assert to_model(batch["clip"], "video").shape == (2, 3, 4, 32, 32)
    assert to_model(batch["clip"][:, :1], "image").shape == (2, 3, 32, 32)
    assert "clip" not in data.batch([Key("video", 1, 0)])


def test_labels_outside_the_vocabulary_and_unlabelled_samples(tmp_path):
    write_image(tmp_path / "a.jpg")
    for label, num_classes, wanted in (("contempt", 8, 7), ("contempt", None, -1), (None, 7, -1)):
        table = table_of(tmp_path, "*.jpg", label)
        data = Samples(table, tmp_path, "image", 32, 1, 1, num_classes=num_classes)
        assert data.labels == [wanted]


# --- the plan

def plan(tasks=("image", "video"), photos: float = 1.0, seed: int = 0, epoch: int = 0):
    labels = {"image": [0] * 18 + [1] * 2, "video": [0] * 11}
    return epoch_plan({task: SimpleNamespace(labels=labels[task]) for task in tasks},
                      {"image": 4, "video": 3}, {"image": photos, "video": 1.0},
                      {"image": False, "video": False}, seed, epoch)


def test_the_plan_depends_on_seed_and_epoch_alone():
    first = plan()
    assert first == plan() and first != plan(seed=1) and first != plan(epoch=1)
    assert all(len({k.task for k in batch}) == 1 for batch in first)
    assert [sum(b[0].task == t for b in first) for t in ("image", "video")] == [5, 3]
    keys = [k for b in first for k in b]
    assert sorted(k.row for k in keys if k.task == "image") == list(range(20))
    assert len({k.seed for k in keys}) == len(keys)
    later = {k.seed for b in plan(epoch=1) for k in b}
    assert not later & {k.seed for k in keys}             # augmented anew in each epoch
    assert sum(b[0].task == "image" for b in plan(photos=0.4)) == 2
    alone = plan(["video"])      # as beside another task
    assert sorted(map(str, alone)) == sorted(str(b) for b in first if b[0].task == "video")
    # its bits: a changed draw would change every trained number
    text = str([(k.task, k.row, k.seed) for b in plan(seed=5, epoch=3) for k in b])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "7bd98ddcdfb224c6"


def test_balanced_order_shows_classes_equally_often():
    labels = [0] * 90 + [1] * 10
    rows = draw_order(labels, 0, 0, 1.0, True)
    assert len(rows) == 100 and abs(np.bincount(np.asarray(labels)[rows])[1] - 50) < 15
    assert sorted(draw_order(labels, 0, 0, 1.0, False)) == list(range(100))
    assert len(draw_order(labels, 0, 0, 0.25, True)) == 25


@pytest.mark.slow
def test_loading_processes_change_nothing(clips_root):
    data = Joint({"video": samples(clips_root, transform=pretrain_transform(32))})
    batches = [[Key("video", 0, 1), Key("video", 1, 2)], [Key("video", 2, 3)]]
    state = torch.get_rng_state()
    alone, helped = (list(loader(data, batches, workers)) for workers in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)      # else a resumed run's draws would move
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["clip"], b["clip"]) and a["unreadable"] == b["unreadable"]


# --- transforms

@pytest.mark.parametrize("transform", [
    pretrain_transform(24), train_transform(24), train_transform(24, (0.5, 1.0), "m10-n6", 1.0)])
def test_one_draw_serves_all_frames(transform):
    frame = torch.from_numpy(smooth(2, 32, 32)).permute(2, 0, 1)
    for seed in range(12):
        torch.manual_seed(seed)
        out = transform(frame.expand(5, -1, -1, -1).clone())
        assert out.shape == (5, 3, 24, 24) and out.dtype == torch.uint8
        assert all(torch.equal(out[0], f) for f in out), seed


@pytest.mark.parametrize("name", [*transforms.GEOMETRY, *transforms.COLOUR])
@pytest.mark.parametrize("level", [0.0, 3.0, 9.0, 10.0])
def test_operations_on_a_clip_are_those_of_timm_on_its_frames(name, level):
    frames = [smooth(4, 60, 40), smooth(5, 60, 40) // 2, np.full((40, 60, 3), 90, np.uint8)]
    clip = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    for seed in (0, 1):
        random.seed(7)
        state = random.getstate()
        found = augment(clip, name, level, seed).permute(0, 2, 3, 1).numpy()
        assert random.getstate() == state and found.dtype == np.uint8
        random.seed(seed)
        arguments = LEVEL_TO_ARG[name](level, {}) if LEVEL_TO_ARG[name] else ()
        if name == "PosterizeIncreasing":                 # Pillow knows no picture of 0 bits
            arguments = (max(1, *arguments),)
        for frame, result in zip(frames, found, strict=True):
            wanted = np.array(NAME_TO_OP[name](Image.fromarray(frame), *arguments,
                                               fillcolor=transforms.GREY, resample=Image.BILINEAR))
            apart = np.abs(result.astype(int) - wanted)
            if name in transforms.COLOUR:
                assert apart.max() <= 3, frame[0, 0]
            else:                                         # Pillow rounds a border pixel in or out
                assert np.quantile(apart, 0.98) <= 4 and apart.mean() < 3


def test_the_draws_of_augmentation_are_those_that_runs_were_trained_by():
    clip = torch.from_numpy(smooth(2, 64, 48)).permute(2, 0, 1).expand(3, -1, -1, -1)
    torch.manual_seed(3)
    drawn = [train_transform(32, randaugment="m7-n4", random_erasing=0.5)(clip) for _ in range(8)]
    assert torch.rand(()).item() == pytest.approx(0.4347738)
    assert torch.stack(drawn).float().mean().item() == pytest.approx(102.78, abs=0.1)


def test_unknown_texts_are_refused_and_pictures_may_stay_as_they_are():
    for text in ("rand-m7", "m11-n2"):
        with pytest.raises(ValueError, match=f"unknown RandAugment '{text}': expected"):
            train_transform(24, randaugment=text)
    x = torch.from_numpy(smooth(2, 24, 24)).permute(2, 0, 1)[None]
    assert torch.equal(pretrain_transform(24, (1.0, 1.0), flip=False)(x), x)


def test_windows_of_frames():
    draw = torch.Generator().manual_seed(0)
    windows = [transforms.train_indices(20, 4, 3, draw) for _ in range(60)]
    assert {w[0] for w in windows} == set(range(11))
    assert all(w == list(range(w[0], w[0] + 10, 3)) for w in windows)
    assert transforms.train_indices(5, 4, 2, draw) == [0, 2, 4, 4]
    assert transforms.test_indices(20, 4, 3, 2) == [[0, 3, 6, 9], [10, 13, 16, 19]]
    assert transforms.test_indices(20, 4, 3, 1) == [[5, 8, 11, 14]]
    assert transforms.test_indices(2, 4, 1, 2) == [[0, 1, 1, 1]] * 2


def test_views_across_the_picture():
    x = torch.arange(60, dtype=torch.uint8).view(1, 1, 1, 60).expand(1, 3, 20, 60)
    left, middle, right = eval_views(x, 20, 3)
    assert (left[0, 0, 0, 0], middle[0, 0, 0, 0], right[0, 0, 0, -1]) == (0, 20, 59)
    assert left.shape == (1, 3, 20, 20) and torch.equal(eval_views(x, 20)[0], middle)
    assert torch.equal(eval_views(x.transpose(-1, -2), 20, 3)[2], right.transpose(-1, -2))
    assert len(eval_views(x[..., :20], 20, 3)) == 1
    assert eval_views(x, 10, 2)[1].shape == (1, 3, 10, 10)


def test_normalisation_is_that_of_imagenet():
    white = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert white.tolist() == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])


@pytest.mark.parametrize("shape, scale", [
    ((40, 40), (0.2, 1.0)), ((20, 60), (0.9, 1.0)), ((60, 20), (0.9, 1.0)),      # misses: central
    ((150, 150), (0.2, 1.0))])      # kept at twice the model's size
def test_random_crops_are_those_of_torchvision_in_the_whole_photo(tmp_path, shape, scale):
    whole = read_clip(write_image(tmp_path / "a.png", 0, *shape), size=64, aspect=True)
    crop = v2.RandomResizedCrop(32, scale, interpolation=InterpolationMode.BICUBIC)
    theirs = v2.Compose([crop, v2.RandomHorizontalFlip()])
    keys = [Key("image", 0, seed) for seed in range(9)]
    for cached in (False, True):
        data = Samples(table_of(tmp_path, "*.png"), tmp_path, "image", 32, 1, 1,
                       pretrain_transform(32, scale), cache=cached)
        for key, found in zip(keys, data.batch(keys)["clip"], strict=True):
            torch.manual_seed(key.seed)
            assert torch.equal(found, theirs(whole)), key


def test_a_box_is_cut_out_before_resizing(tmp_path):
    path = write_video(tmp_path / "0.mp4", 0, 6, 112, 112)
    box, key = (0, 16, 80, 80), Key("video", 0, 3)
    cut = read_frames(path, [1], crop_box=box).permute(0, 3, 1, 2)
    assert torch.equal(cut, read_clip(path)[1:2, :, :80, 16:96])
    clips = []
    for cached in (False, True):
        data = samples(tmp_path, transform=pretrain_transform(32, flip=False), crop_box=box,
                       short_side=48, cache=cached)
        clips.append(data.load(key))
        assert data.batch([key])["clip"].shape == (1, 4, 3, 32, 32)
    assert torch.equal(*clips) and clips[0].shape == (4, 3, 48, 48)
    tested = samples(tmp_path, test_segments=1, crop_box=box, short_side=48)
    assert tested.batch([key])["clip"].shape[-1] == 32
    write_video(path, 0, 6, 64, 64)
    with pytest.raises(MediaError, match="it is 64 x 64 px, too small for the box of 80 x 80 px"):
        read_frames(path, [1], crop_box=box)
