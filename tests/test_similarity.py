"""Stimuli, transfer, prototypes and the similarity of representations, on planted features."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from study import NAMES, clips, labelled, tiny

from s4d.config import Finetune, Source
from s4d.data import MediaError
from s4d.study import similarity, stimuli
from s4d.study.similarity import cka, corrected_difference, matched_classes, mean_cosine, prototypes

LABELS = np.array(NAMES)[np.arange(140) % 7]


def test_cka_of_equal_rotated_and_independent_representations():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(60, 12)), rng.normal(size=(60, 30))
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(12, 12)))[0] + 1
    assert cka(x, x) == pytest.approx(1) and cka(x, turned) == pytest.approx(1)
    assert abs(cka(x, noise)) < 0.1
    with pytest.raises(ValueError, match="at least 4"):
        cka(x[:3], x[:3])


def test_layer_similarity_tells_category_and_clip_apart_and_knows_its_interval():
    rng, labels = np.random.default_rng(3), np.repeat(np.arange(4), 15)
    contents = dict(category=2 * rng.normal(size=(4, 10))[labels], clip=rng.normal(size=(60, 10)),
                    none=np.zeros((60, 10)))
    rows = pd.DataFrame(dict(label=labels, subject=[f"s{u % 12}" for u in range(60)]))
    couples = {}
    for name, x in contents.items():
        one, other = x + 0.5 * rng.normal(size=(2, *x.shape))
        couples[name] = [({"embed": one, "pooled": one}, {"embed": other, "pooled": other})]
    couples["same"] = [(pair[0], pair[0]) for [pair] in couples.values()]
    table = similarity.similarity_by_layer(couples, rows, 100)
    assert table[table.layer == "embed"].p_any.isna().all()
    found = table[table.layer == "pooled"].set_index("comparison")
    category, clip, none = (found.loc[name] for name in contents)
    assert category.p_any < 0.05 < category.p_within
    assert category.within_mean > 0.5 * category.value
    assert max(clip.p_any, clip.p_within) < 0.05 < none.p_any
    assert clip.low < clip.value < clip.high <= 1
    assert found.loc["same", ["value", "low", "high"]].tolist() == pytest.approx([1, 1, 1])


def test_prototypes_match_across_an_offset_and_not_when_classes_are_renamed():
    rng, names = np.random.default_rng(0), list(NAMES)
    centres = rng.normal(size=(7, 20))[np.arange(140) % 7]

    def noisy(offset: float) -> np.ndarray:
        return centres + offset + 0.3 * rng.normal(size=(140, 20))
    a, b = (prototypes(noisy(offset), LABELS, names) for offset in (0, 9))
    found = matched_classes(a @ b.T)
    assert found["diagonal"] > 0.9 and found["p"] < 0.01
    assert matched_classes(a @ np.roll(b, -1, 0).T)["p"] > 0.5
    rows = pd.DataFrame(dict(label=LABELS, subject=np.arange(140) % 20))
    networks, fewer = {"m": [(noisy(0), noisy(9)) for _ in "12"]}, rows.replace("anger", "fear")
    table = similarity.prototype_study(networks, rows, fewer, names)     # no clip is of anger
    equal = table[(table.image_class == table.video_class) & (table.video_class != "anger")]
    one = table.iloc[0]
    assert len(table) == 49 and equal.cosine.mean() == pytest.approx(one.diagonal)
    assert table.photos.eq(20).all() and equal.clips.tolist() == [20, 20, 20, 20, 40, 20]
    assert one.ceiling == pytest.approx(6 / 5)
    assert 0.5 < one.low < one.corrected < one.high <= one.ceiling


def shown_to(subjects: int, centres: np.ndarray, rng: np.random.Generator) -> tuple:
    """Features of subjects who each show up to three emotions in a manner of their own."""
    subject = np.repeat(np.arange(subjects), rng.integers(1, 4, subjects))
    label = rng.integers(0, len(centres), len(subject))
    manner = 0.7 * rng.normal(size=(subjects, centres.shape[1]))[subject]
    features = centres[label] + manner + rng.normal(size=(len(subject), centres.shape[1]))
    return features, pd.DataFrame(dict(label=np.array(NAMES)[label], subject=subject))


def test_the_interval_of_matching_prototypes_covers_what_was_planted():
    names, covered, errors = list(NAMES), [], []
    for world in range(200):      # whose clips share half of the photos' prototypes
        rng = np.random.default_rng(world)
        still, own = rng.normal(size=(2, 7, 20))
        moving = 0.5 * still + np.sqrt(0.75) * own
        cosine, equal = mean_cosine([(still, moving)], NAMES, NAMES, names), np.eye(7) > 0
        true = cosine[equal].mean() - cosine[~equal].mean()
        (photos, photo_rows), (x, rows) = shown_to(150, still, rng), shown_to(60, moving, rng)
        corrected, low, high = corrected_difference([(photos, x)], photo_rows, rows, names)
        cosine = mean_cosine([(photos, x)], photo_rows.label, rows.label, names)
        covered.append(low <= true <= high)
        errors.append((matched_classes(cosine)["difference"] - true, corrected - true))
    assert 0.90 <= np.mean(covered) <= 0.98
    noise, left = np.mean(errors, 0)
    assert noise < -0.02 and abs(left) < -noise / 4
    one = corrected_difference([(photos, x)], photo_rows, rows.assign(subject="s"), names)
    assert np.isnan(one).all()


def test_transfer_reads_the_trained_head_on_the_other_modality():
    model, x, rows = tiny(), clips(), labelled(6)
    pooled = stimuli.features(model, x)

    def read(head: str, shared: list[str]) -> pd.DataFrame:
        found = similarity.read_by_head(model, pooled, head, NAMES, shared)
        return rows.assign(predicted=found, method="m", seed=0, head=head, stimuli="video")
    direct = model.head["image"](torch.from_numpy(pooled).float()).argmax(1)
    both = pd.concat([read("image", list(NAMES)), read("video", list(NAMES))])
    assert read("image", list(NAMES)).predicted.tolist() == [NAMES[i] for i in direct]
    table = similarity.transfer_matrix(both, {"m": ("video",)}, resamples=50)
    assert table.zero_shot.tolist() == [True, False] and not table.unseen.any()
    assert table.majority.tolist() == pytest.approx([100 / 6] * 2)
    assert similarity.transfer_matrix(both, {"m": ("image",)}, 50).unseen.tolist() == [True, False]
    assert set(read("image", ["neutral", "fear"]).predicted) <= {"neutral", "fear"}


def test_a_probe_finds_emotions_that_a_line_separates_and_none_in_permuted_labels():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(7, 10))[np.arange(140) % 7] + 0.3 * rng.normal(size=(2, 140, 10))
    assert (similarity.read_by_probe(train, LABELS, test) == LABELS).mean() > 0.95
    permuted = similarity.read_by_probe(train, rng.permutation(LABELS), test)
    assert (permuted == LABELS).mean() < 0.35


def test_a_broken_photo_and_a_broken_clip_are_left_out_and_named(tmp_path, monkeypatch):
    for name in ("good", "other"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
        (tmp_path / name).mkdir()
        for t in range(4):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{t}.png")
    for broken in ("other.png", "other/3.png"):
        (tmp_path / broken).write_bytes(b"no picture")

    def rows(*paths: str) -> pd.DataFrame:
        return pd.DataFrame(dict(path=paths, label="fear", subject="a", split="test"))
    source = Source("affectnet", str(tmp_path))
    cfg = Finetune(image=source, video=source, img_size=32, num_frames=4, sampling_rate=1)
    monkeypatch.setattr(stimuli, "tables", lambda cfg: {"image": rows("good.png", "other.png")})
    found: dict[str, str] = {}
    x, kept = stimuli.subset(cfg, "image", unreadable=found)
    assert len(x) == 1 and kept.path.tolist() == ["good.png"] and list(found) == ["other.png"]
    x, frames = stimuli.frames_of(cfg, rows("good", "other"), unreadable=found)
    assert len(x) == 4 and set(frames.path) == {"good"} and list(found) == ["other.png", "other"]
    named = stimuli.left_out({"a.jpg": "empty", "b.mp4": "truncated"})
    assert "`a.jpg` (empty); `b.mp4` (truncated)" in named and not stimuli.left_out({})
    with pytest.raises(MediaError, match="none of 1 clips"):
        stimuli.frames_of(cfg, rows("other"), {})


def test_layers_are_read_in_order_and_a_frame_stands_for_its_clip():
    model, x = tiny(), clips()
    found = stimuli.layer_features(model, x)
    assert list(found) == ["embed", "block 1", "block 2", "pooled"]
    np.testing.assert_allclose(found["pooled"], stimuli.features(model, x), atol=1e-6)
    frames = pd.DataFrame(dict(path=["a"] * 5 + ["b"] * 3, frame=[0, 1, 2, 3, 4, 0, 1, 2]))
    assert stimuli.apex_frames(stimuli.truth_of(None, frames)).tolist() == [2, 6]
    known = frames.assign(apex=frames.path.map({"a": 4, "b": 0}))
    assert stimuli.apex_frames(known).tolist() == [4, 5]
