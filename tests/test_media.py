"""Pictures of every kind, and every way in which files go wrong."""
from __future__ import annotations

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import cut_off, damage, smooth, write_image, write_video
from PIL import Image

from s4d.data import MediaError, count_frames, read_clip
from s4d.data.media import header


def pixels(picture: torch.Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("width", [24, 48, 72, 64, 96])      # decord pads rows of some
def test_a_video_has_the_frames_that_were_written(tmp_path, width):
    path = write_video(tmp_path / "v.mp4", 3, frames=4, width=width, height=64)
    clip = read_clip(path)
    assert clip.shape == (4, 3, 64, width) and clip.dtype == torch.uint8
    assert count_frames(path) == 4 and header(path) == (width, 64, 8)
    for t in range(4):
        assert np.abs(pixels(clip[t]) - smooth(3, width, 64, t / 4)).mean() < 6
    assert torch.equal(read_clip(path, [3, 0, 3]), clip[[3, 0, 3]])
    resized = read_clip(write_video(tmp_path / "w.mp4", 3, 4, 128, 64), [2], size=width)[0]
    wanted = Image.fromarray(smooth(3, 128, 64, 2 / 4)).resize((width, width))
    assert np.abs(pixels(resized) - np.array(wanted)).mean() < 6


def test_a_frame_folder_is_read_in_natural_order_with_mixed_extensions(tmp_path):
    names = ["f1.jpg", "f2.PNG", "f9.jpeg", "f10.bmp", "f11.jpg"]
    for i, name in enumerate(names):
        Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(tmp_path / name)
    (tmp_path / ".f0.jpg").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("no frame")
    clip = read_clip(tmp_path)
    assert count_frames(tmp_path) == 5
    assert (clip[:, 0].float().mean((1, 2)) / 40).round().tolist() == [0, 1, 2, 3, 4]
    Image.new("RGB", (48, 32)).save(tmp_path / "f12.png")
    refused(tmp_path, r"frame f12.png is 48 x 32 px, f1.jpg is 32 x 32 px: give a size")
    assert read_clip(tmp_path, size=32).shape == (6, 3, 32, 32)


def test_every_image_mode_becomes_rgb(tmp_path):
    rgb = smooth(1, 40, 30)
    picture = Image.fromarray(rgb)

    def read(image: Image.Image, name: str = "p.png", size: int | None = None, **options):
        image.save(tmp_path / name, **options)
        return pixels(read_clip(tmp_path / name, size=size, aspect=True)[0])
    grey = np.array(picture.convert("L"))
    assert np.array_equal(read(picture), rgb)
    assert np.array_equal(read(picture.convert("L")), np.stack([grey] * 3, -1))
    sixteen, floats = grey.astype(np.uint16) * 257, grey.astype(np.float32)
    assert np.abs(read(Image.fromarray(sixteen)) - grey[..., None]).max() <= 1
    assert np.abs(read(Image.fromarray(floats), "p.tiff") - grey[..., None]).max() <= 1
    for alpha in (0, 128):
        found = read(Image.fromarray(np.dstack([rgb, np.full_like(grey, alpha)]), "RGBA"))
        assert np.abs(found - rgb * (alpha / 255)).max() < 3
    assert np.abs(read(picture.convert("P", palette=Image.Palette.ADAPTIVE)) - rgb).mean() < 10
    assert read(picture.convert("1")).shape == (30, 40, 3)
    found = read(picture.convert("CMYK"), "c.jpg", 16, quality=95)
    wanted = picture.resize((21, 16), Image.Resampling.BICUBIC)
    assert np.abs(found - np.array(wanted)).mean() < 6
    upright = np.array(picture.rotate(-90, expand=True))
    exif = Image.Exif()
    exif[0x0112] = 6                                      # to be turned by 90 degrees for display
    assert np.array_equal(read(picture, exif=exif), upright)
    for name in ("p.png", "p.jpg"):                       # also where it is decoded smaller
        found = read(picture.resize((160, 120)), name, 30, exif=exif)
        assert found.shape == (40, 30, 3) and np.abs(found - upright).mean() < 6


@pytest.mark.parametrize("place", ["is_dir", "iterdir"])
def test_a_folder_that_cannot_be_reached_is_a_sentence(tmp_path, monkeypatch, place):
    """No permission, or a network mount that has vanished."""
    write_image(tmp_path / "frames/1.jpg")

    def fail(self):
        raise OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(Path, place, fail)
    refused(tmp_path / "frames", "stale file handle: make it readable, or restore its disk")


def refused(path: Path, said: str, **options) -> None:
    with pytest.raises(MediaError, match=said) as caught:
        read_clip(path, **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))       # it crosses process borders
    assert (copy.path, copy.cause) == (caught.value.path, caught.value.cause)


def test_what_is_missing_empty_or_no_picture_is_refused(tmp_path):
    (tmp_path / "frames").mkdir()
    for name, said in (("t.txt", "unknown extension '.txt'"), ("t.jpg", "not an image")):
        (tmp_path / name).write_text("text")              # test_faults plants the other kinds
        refused(tmp_path / name, said)
    refused(tmp_path / "no.jpg", "there is no such file")
    refused(tmp_path / "frames", "holds no frames")
    refused(write_image(tmp_path / "small.png", width=8, height=8), "at least 16 px")
    path = write_image(tmp_path / "p.png")
    refused(path, r"frames \[1\] were asked for, but it has 1", indices=[1])
    refused(path, "frames none were asked for", indices=[])
    refused(write_video(tmp_path / "v.mp4"), r"frames \[8\] were asked for, but it has 8",
            indices=[0, 8])


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_truncated_and_damaged_images_are_refused(tmp_path, extension, size):
    for harm in (lambda p: cut_off(p, 0.6), lambda p: damage(p, 0.5, 0.6),
                 lambda p: damage(p, 0.0, 0.1)):
        refused(harm(write_image(tmp_path / f"p.{extension}", 1, 160, 160)), "damaged", size=size)


@pytest.mark.parametrize("gop", [1, 4, 12])
def test_truncated_and_damaged_videos_are_refused(tmp_path, gop):
    for harm in (lambda p: cut_off(p, 0.6), lambda p: damage(p, 0.5, 0.52),
                 lambda p: damage(p, 0.8, 0.85), lambda p: damage(p, 0.0, 0.1)):
        path = harm(write_video(tmp_path / "v.mp4", 1, 16, 96, 96, gop=gop))
        refused(path, "damaged")
        refused(path, "damaged", indices=[0], size=32)
    path = write_video(tmp_path / "v.mp4", 1, 16, 96, 96, gop=gop)
    assert len(read_clip(path)) == 16      # the good file in the damaged one's place
