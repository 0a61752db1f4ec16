"""Stimuli, transfer, prototypes and the similarity of representations, on planted features."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from study import NAMES, clips, labelled, tiny

from s4d.config import Finetune, Source
from s4d.study import similarity, stimuli, transfer
from s4d.study.similarity import cka, matched_classes, prototype_study, prototypes, rsa

LABELS = np.array(NAMES)[np.arange(140) % 7]


def test_cka_and_rsa_of_equal_rotated_and_independent_representations():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(60, 12)), rng.normal(size=(60, 30))
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(12, 12)))[0] + 1
    for measure in (cka, rsa):
        assert measure(x, x) == pytest.approx(1) and measure(x, turned) == pytest.approx(1)
        assert abs(measure(x, noise)) < 0.1
    with pytest.raises(ValueError, match="at least 4"):
        cka(x[:3], x[:3])
    y = x[:, :4] + rng.normal(size=(60, 4))
    apart = (pdist(v - v.mean(0), "cosine") for v in (x, y))
    assert rsa(x, y) == pytest.approx(spearmanr(*apart)[0])


def test_layer_similarity_tells_category_subject_and_clip_apart():
    rng, units = np.random.default_rng(2), np.arange(60) % 12
    labels = np.repeat(np.arange(4), 15)
    category, subject = (2 * rng.normal(size=(n, 10))[of] for n, of in ((4, labels), (12, units)))
    contents = dict(category=category, subject=subject, clip=rng.normal(size=(60, 10)),
                    none=np.zeros((60, 10)))
    pair = tuple({name: x + 0.5 * rng.normal(size=x.shape) for name, x in contents.items()}
                 for _ in range(2))
    rows = pd.DataFrame(dict(label=labels, subject=[f"s{u}" for u in units]))
    couples = {"m": [pair], "other": [pair[::-1], pair]}
    every = similarity.similarity_by_layer(couples, rows, 100)
    table = every.query("measure == 'cka' and comparison == 'm'").set_index("layer")
    assert table.p_any["category"] < 0.05 < table.p_within["category"]
    assert table.within_mean["category"] > 0.5 * table.value["category"]
    assert table.p_within["subject"] < 0.05 < table.p_person["subject"]
    assert table.loc["clip", ["p_any", "p_within", "p_person"]].max() < 0.05 < table.p_any["none"]
    few = similarity.similarity_by_layer(couples, rows, 9, tested=("subject",))
    untested = few[(few.measure == "rsa") | (few.layer != "subject")]
    assert untested[["p_person", "person_mean", "any_95"]].isna().all(axis=None)
    alone = rows.assign(subject=[f"s{i}" for i in range(60)])
    found = similarity.similarity_by_layer({"m": [pair]}, alone, 9).query("measure == 'cka'")
    assert found.p_person.isna().all() and found.p_within.notna().all()   # nobody shows two


def test_shuffles_of_all_comparisons_at_once_are_those_of_each():
    rng = np.random.default_rng(2)
    forms = {name: [tuple(similarity.unbiased_centre(rng.normal(size=(20, 5))) for _ in "12")
                    for _ in range(seeds)] for name, seeds in (("a", 2), ("b", 1))}
    orders = np.array([rng.permutation(20) for _ in range(7)])
    found = similarity._shuffled(forms, orders)
    for name, pairs in forms.items():
        each = [np.mean([(a * b[np.ix_(o, o)]).sum() for a, b in pairs]) for o in orders]
        np.testing.assert_allclose(found[name], each)


def test_equal_networks_are_equal_in_every_layer_and_the_interval_knows_it():
    rng, rows = np.random.default_rng(0), labelled(40, 10)
    first = {"a": rng.normal(size=(40, 8)), "b": rng.normal(size=(40, 8))}
    noisy, other = ({k: w * v + rng.normal(size=v.shape) for k, v in first.items()}
                    for w in (1.5, 0))

    def found(*second: dict) -> pd.DataFrame:
        return similarity.similarity_by_layer({"m": [(first, s) for s in second]}, rows, 30)
    same = found(first, {k: 3 * v for k, v in first.items()})
    assert same[["value", "low", "high", "seed_low", "seed_high"]].to_numpy() == pytest.approx(1)
    assert (same.p_any.dropna() < 0.05).all()
    one, mixed = found(noisy), found(noisy, other)
    assert (one.low < one.value).all() and (one.value < one.high).all() and (one.high <= 1).all()
    assert (mixed.seed_low < mixed.value).all() and (mixed.value < mixed.seed_high).all()


def test_prototypes_match_across_an_offset_and_not_when_classes_are_renamed():
    rng, names = np.random.default_rng(0), list(NAMES)
    centres = rng.normal(size=(7, 20))[np.arange(140) % 7]

    def noisy(offset: float) -> np.ndarray:
        return centres + offset + 0.3 * rng.normal(size=(140, 20))
    a, b = (prototypes(noisy(offset), LABELS, names) for offset in (0, 9))
    found = matched_classes(a @ b.T)
    assert found["diagonal"] > 0.9 and found["p"] < 0.01
    assert matched_classes(a @ np.roll(b, -1, 0).T)["p"] > 0.5
    few = prototypes(noisy(0), np.where(LABELS == NAMES[6], NAMES[0], LABELS), names)
    assert np.isnan(few[6]).all() and matched_classes(few @ few.T)["diagonal"] == pytest.approx(1)
    rows = pd.DataFrame(dict(label=LABELS, subject=[f"s{i % 20}" for i in range(140)]))
    photos, moving = ({("m", seed): noisy(offset) for seed in (0, 1)} for offset in (0, 9))
    photos["weak", 0] = rng.normal(size=(140, 20)) + 0.5 * photos["m", 0]
    moving["weak", 0] = moving["m", 0][::-1]
    cells, table = prototype_study(photos, moving, rows, rows, names, reference="m")
    table = table.set_index("method")
    one = table.loc["m"]
    equal = cells[(cells.image_class == cells.video_class) & (cells.method == "m")].cosine
    assert len(cells) == 2 * 49 and equal.mean() == pytest.approx(one.diagonal)
    assert one.seed_low <= one.seed_high and one.ceiling == pytest.approx(7 / 6)
    assert 0.5 < one.low < one.corrected < one.high <= one.ceiling
    assert one.corrected > one.difference
    assert (one[["change", "change_low", "change_high"]] == 0).all()
    assert table.change_high["weak"] < 0


def shown_to(subjects: int, centres: np.ndarray, rng: np.random.Generator) -> tuple:
    """Features of subjects who each show up to three emotions in a manner of their own."""
    subject = np.repeat(np.arange(subjects), rng.integers(1, 4, subjects))
    label = rng.integers(0, len(centres), len(subject))
    manner = 0.7 * rng.normal(size=(subjects, centres.shape[1]))[subject]
    features = centres[label] + manner + rng.normal(size=(len(subject), centres.shape[1]))
    names = [f"s{i}" for i in subject]
    return features, pd.DataFrame(dict(label=np.array(NAMES)[label], subject=names))


def test_the_interval_of_matching_prototypes_covers_what_was_planted():
    """Worlds whose clips share half of the photos' prototypes."""
    names, covered, errors = list(NAMES), [], []
    for world in range(200):
        rng = np.random.default_rng(world)
        still, own = rng.normal(size=(2, 7, 20))
        moving = 0.5 * still + np.sqrt(0.75) * own
        cosine = prototypes(still, NAMES, names) @ prototypes(moving, NAMES, names).T
        true, equal = matched_classes(cosine)["difference"], np.eye(7, dtype=bool)
        assert true == pytest.approx(cosine[equal].mean() - cosine[~equal].mean())
        (photos, photo_rows), (x, rows) = shown_to(150, still, rng), shown_to(60, moving, rng)
        without = similarity.match_without([photos], [x], photo_rows, rows, names)
        corrected, low, high = similarity.freed_of_noise(without)
        covered.append(low <= true <= high)
        errors.append((without[0] - true, corrected - true))
    assert 0.90 <= np.mean(covered) <= 0.98
    noise, left = np.mean(errors, 0)
    assert noise < -0.02 and abs(left) < -noise / 4
    single = rows[:2].assign(subject="s")
    one = similarity.match_without([photos], [x[:2]], photo_rows, single, names)
    assert np.isnan(similarity.freed_of_noise(one)).all()


def test_transfer_reads_the_trained_head_on_the_other_modality():
    model, x, rows = tiny(), clips(), labelled(6)
    pooled = stimuli.features(model, x)

    def read(head: str, shared: list[str]) -> pd.DataFrame:
        found = transfer.read_by_head(model, pooled, rows, head, NAMES, shared)
        return found.assign(method="m", seed=0, head=head, stimuli="video")
    direct = model.head["image"](torch.from_numpy(pooled).float()).argmax(1)
    both = pd.concat([read("image", list(NAMES)), read("video", list(NAMES))])
    predicted = both[both["head"] == "image"].predicted.tolist()
    assert predicted == [NAMES[i] for i in direct]
    table = transfer.transfer_matrix(both, {"m": ("video",)}, resamples=50)
    assert table.zero_shot.tolist() == [True, False] and not table.unseen.any()
    assert table.majority.tolist() == pytest.approx([100 / 6] * 2)
    assert transfer.transfer_matrix(both, {"m": ("image",)}, 50).unseen.tolist() == [True, False]
    part = read("image", ["neutral", "fear"])
    assert set(part.predicted) <= {"neutral", "fear"} and set(part.label) == {"neutral", "fear"}


def test_a_probe_finds_emotions_that_a_line_separates_and_none_in_permuted_labels():
    rng, rows, saw = np.random.default_rng(0), labelled(140, 20), {"m": ("image", "video")}
    centres = rng.normal(size=(7, 10))[np.arange(140) % 7]

    def read(labels: np.ndarray, shared: list[str]) -> pd.DataFrame:
        given = [centres + 0.3 * rng.normal(size=(140, 10)) for _ in range(3)]
        tables = [transfer.read_by_probe(given[0], pd.Series(labels), x, rows, shared).assign(
            method="m", seed=0, head="image", stimuli=kind)
            for kind, x in zip(("image", "video"), given[1:], strict=True)]
        return pd.concat(tables)
    table = transfer.transfer_matrix(read(LABELS, list(NAMES)), saw, 50)
    assert table.war.min() > 95 and table.zero_shot.tolist() == [False, True]
    permuted = read(rng.permutation(LABELS), list(NAMES))
    assert transfer.transfer_matrix(permuted, saw, 50).war.max() < 35
    part = read(LABELS, ["neutral", "fear"])
    assert set(part.predicted) == {"neutral", "fear"} == set(part.label)


def test_the_shared_map_keeps_neighbours_and_repeats_itself():
    rng, labels = np.random.default_rng(0), np.array(["fear", "anger"])[np.arange(40) % 2]
    photos, moving = (8.0 * (labels == "fear")[:, None] + rng.normal(size=(40, 5))
                      for _ in range(2))
    given = photos, moving, *[pd.DataFrame(dict(label=labels))] * 2
    table = transfer.shared_space(*given, most=30)
    pd.testing.assert_frame_equal(table, transfer.shared_space(*given, most=30))
    assert table.task.value_counts().tolist() == [30, 30]
    at, label = table[["x", "y"]].to_numpy(), table.label.to_numpy()
    apart = np.linalg.norm(at[:, None] - at[None], axis=2) + 1e9 * np.eye(60)
    assert (label[apart.argmin(1)] == label).mean() > 0.9


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
    assert "2 files" in named and "`a.jpg` (empty); `b.mp4` (truncated)" in named
    with pytest.raises(stimuli.StimuliError, match="none of 1 clips"):
        stimuli.frames_of(cfg, rows("other"))


def test_layers_are_read_in_order_and_a_frame_stands_for_its_clip():
    model, x = tiny(), clips()
    found = stimuli.layer_features(model, x)
    assert list(found) == ["embed", "block 1", "block 2", "pooled"]
    np.testing.assert_allclose(found["pooled"], stimuli.features(model, x), atol=1e-6)
    frames = pd.DataFrame(dict(path=["a"] * 5 + ["b"] * 3, frame=[0, 1, 2, 3, 4, 0, 1, 2]))
    assert stimuli.apex_frames(frames).tolist() == [2, 6]
    assert stimuli.apex_frames(frames, pd.Series({"a": 4, "b": 0})).tolist() == [4, 5]
