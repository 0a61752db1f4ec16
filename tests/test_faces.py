"""The embedded data: actions, expressions in time, the renderer, and the corpora it writes."""
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from s4d.config import ConfigError, Faces
from s4d.data import index, read_clip
from s4d.emotions import EMOTIONS, EMOTIONS_11
from s4d.faces import corpus, facs, render, renderer, subjects, views
from s4d.files import OutputError
from s4d.study import difficulty

TINY = Faces(img_size=32, photos=70, photo_subjects=12, clips=35, clip_subjects=10, speaking=4,
             speaking_subjects=2, compound=55, compound_subjects=10, num_frames=4, fps=4)
PLAIN = dict(seed=21, tone=3.6, glasses=0, beard=0, stubble=0, fringe=0)
REST = facs.sheet({})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return corpus.ensure(TINY, tmp_path_factory.mktemp("one"), workers=1)


def test_two_workers_write_the_same_bytes_and_an_interrupted_build_continues(built, tmp_path):
    build = tmp_path / f"{TINY.folder}.part"
    shard = corpus.shards(TINY, build)[0]
    corpus.draw_shard(TINY, build, *shard)              # as after an interruption
    stamp = (build / "affectnet" / shard[-1][0].path).stat().st_mtime_ns
    folder = corpus.ensure(TINY, tmp_path, workers=2)
    one, two = ({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
                for root in (built, folder))
    assert one == two
    assert (folder / "affectnet" / shard[-1][0].path).stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir()] == [TINY.folder]


def test_the_datasets_own_readers_find_what_was_drawn(built):
    truth = corpus.truth(built).drop_duplicates("path").set_index("path")
    found = {name: index(name, built / name) for name in ("affectnet", "voxceleb2")}
    found["mafw"], tested = index("mafw", built / "mafw", fold=1), []
    for fold in range(1, 6):
        found["dfew"] = clips = index("dfew", built / "dfew", fold=fold)
        by = clips.groupby("split")["subject"].agg(set)
        assert not by["train"] & by["test"]
        tested += list(clips.loc[clips["split"] == "test", "path"])
    assert len(tested) == len(set(tested)) == TINY.clips
    assert [*map(len, found.values())] == [TINY.photos, TINY.speaking, TINY.compound, TINY.clips]
    assert found.pop("voxceleb2")["label"].isna().all()
    for name, rows in found.items():
        assert set(rows["label"]) == set(EMOTIONS_11 if name == "mafw" else EMOTIONS)
        assert (truth.loc[name + "/" + rows["path"], "label"].to_numpy() == rows["label"]).all()
        assert rows["subject"].notna().all()
    splits = found["affectnet"].groupby("split")["subject"].agg(set)
    people = [{s.row for s in corpus.samples(TINY) if s.corpus == c} for c in corpus.SHARD]
    for groups in (splits, people):                           # nobody is in two of them
        assert sum(map(len, groups)) == len(set.union(*groups))


def test_a_drawing_process_that_is_killed_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "draw_shard", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(OutputError, match="that draws faces was killed, .*parts stay"):
        corpus.ensure(TINY, tmp_path, workers=2)


def test_truth_has_one_row_for_each_frame_that_decodes(built):
    truth = corpus.truth(built)
    counts = truth.groupby("path").size()
    for path in [*counts.index[:3], *counts.index[counts > 1]]:
        assert read_clip(built / path).shape == (counts[path], 3, TINY.img_size, TINY.img_size)
    values = truth.filter(like="AU").to_numpy()
    assert values.shape[1] == 2 * len(facs.ACTIONS) and values.min() >= 0 and values.max() <= 1


def test_class_counts_follow_the_real_shares_by_the_balance_exponent():
    real = corpus.REAL["affectnet"]
    for power, share in ((1, np.array(list(real.values())) / 283901), (0, np.full(7, 1 / 7))):
        assert np.allclose(corpus.apportion(10 ** 6, real.values(), power, 1) / 10 ** 6, share,
                           atol=1e-5)
    rows = corpus.samples(replace(Faces(), class_balance=1.0))
    labels = [s.label for s in rows if s.split == "train" and s.corpus == "affectnet"]
    assert labels.count("happiness") > 1.7 * labels.count("neutral")


def test_labels_err_as_often_as_asked():
    rows = corpus.samples(replace(Faces(), label_noise=.1, gap=.5))
    for name, share in (("affectnet", .1), ("dfew", .2)):
        of = [s for s in rows if s.corpus == name]
        wrong = [s for s in of if s.performed != s.label]
        assert abs(len(wrong) / len(of) - share) < 4 * (share * (1 - share) / len(of)) ** .5
        assert all(s.performed == facs.NEIGHBOUR[s.label] for s in wrong)
    turning = [s for s in rows if s.before]
    assert {s.corpus for s in turning} == {"dfew", "mafw"}
    assert all(facs.TURNS[s.performed] == s.before for s in turning)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write the corpus"):
        corpus.ensure(TINY, tmp_path / "file")


def drawn(*sheets: np.ndarray, img_size: int = 64, scene=None, **who) -> torch.Tensor:
    return render(subjects(1, **{**PLAIN, **who}), np.stack(sheets), scene, img_size).float()


# Rows of a 64 px picture in which each action lives.
REGIONS = {**dict.fromkeys(facs.MOUTH, (36, 64)), **dict.fromkeys((1, 2), (8, 32)), 4: (10, 36),
           **dict.fromkeys((5, 7, 43), (22, 36)), 6: (22, 52), 9: (16, 56), 12: (30, 60)}


@pytest.mark.parametrize("action", facs.ACTIONS)
def test_an_action_changes_its_own_region_and_leaves_far_ones_alone(action):
    still, half, full = drawn(*(facs.sheet({action: level}) for level in (0, .5, 1)))
    some, change = ((moved - still).abs().mean((0, 2)) for moved in (half, full))     # by row
    top, bottom = REGIONS[action]
    assert change.max() > 4 and change[top:bottom].sum() > 0.95 * change.sum()
    assert 0 < some.sum() < change.sum()


def test_left_is_right_in_the_mirror():
    light = views(1)
    light["light"] = torch.tensor([[0., .5, .8]])
    for action in (2, 12, 43):
        sheets = REST, facs.sheet({(action, "left"): 1}), facs.sheet({(action, "right"): 1})
        still, left, right = drawn(*sheets, scene=light, asymmetry=0, parting=0)
        left, right = (left - still).abs().mean(0), (right - still).abs().mean(0)
        assert (left - right.flip(-1)).abs().sum() < .3 * left.sum()
        assert (left - right).abs().sum() > 1.3 * left.sum()
        if action == 12:                        # the subject's left is on the picture's right
            assert left[:, 36:].sum() > 2.5 * left[:, :28].sum()


def test_heads_turn_and_nothing_leaves_the_range_of_colours():
    actions = np.random.default_rng(0).uniform(0, 1, (6, 2, 23)).astype(np.float32)
    wild = renderer.draw(subjects(6, seed=4), torch.from_numpy(actions),
                         views(6, yaw=35.0, pitch=-20.0, nuisance=1.0), 64, torch.Generator())
    assert bool(wild.isfinite().all()) and 0 <= wild.min() and wild.max() <= 1
    a, b = drawn(REST, REST, scene=views(2, yaw=[-25.0, 25.0]))               # the head turns
    assert (a - b).abs().mean() > 5 and (a - b.flip(-1)).abs().mean() < (a - b).abs().mean()


@pytest.mark.parametrize("count, shape, size, message", [
    (2, (3, 2, 23), 64, "2 subjects for 3 frames"), (1, (1, 23), 64, r"shape \[1, 23\]"),
    (1, (1, 2, 23), 16, "size 16 px: give 32 to 224")])
def test_faces_that_cannot_be_drawn_are_refused(count, shape, size, message):
    with pytest.raises(ConfigError, match=message):
        render(subjects(count), np.zeros(shape), img_size=size)
    with pytest.raises(ConfigError, match="unknown property 'noze'"):
        subjects(1, noze=1)


def test_a_turn_played_backwards_is_the_turn_of_the_other_emotion():
    first, then = (facs.draw(e, 1.0, np.random.default_rng(k))
                   for k, e in enumerate(("disgust", "anger")))
    t = np.arange(16) / 8
    there, back = (facs.turn(*pair, t, 2.0, t.mean())[0] for pair in ((first, then), (then, first)))
    assert np.allclose(there, back[::-1], atol=1e-12) and not np.allclose(there, back, atol=.1)
    act = facs.perform("anger", 1.0, 16, 8, np.random.default_rng(1), before="disgust")
    nose, brow = (act["actions"][:, 0, facs.INDEX[a]] for a in (9, 4))
    assert nose.argmax() < 8 <= act["apex"] and brow[act["apex"]] > .5 * brow.max()


def test_the_gap_goes_from_a_photo_held_still_to_far():
    held = facs.perform("fear", 1.0, 16, 8, np.random.default_rng(0), life=0.0)["actions"]
    assert np.allclose(held, held[:1])
    near, far = (corpus.distance(replace(TINY, gap=g)) for g in (0.0, 1.0))
    assert near.intensity == TINY.intensity and near.speech == near.motion == near.order == 0
    assert far.intensity[1] < near.intensity[0] and far.pose == 3 * near.pose == 3 * TINY.pose
    clips = (corpus.preview(replace(TINY, gap=g, num_frames=6), "surprise", 3) for g in (0., 1.))
    still, moving = (np.abs(np.diff(clip.astype(float), axis=0)) for clip in clips)
    assert still.max() <= 1 < moving.mean()                       # rounding at most


def test_expressions_rise_and_fall_within_the_clip():
    rng, smile = np.random.default_rng(0), facs.INDEX[12]
    acts = [facs.perform("happiness", 1.0, 16, 8, rng) for _ in range(60)]
    courses = np.stack([act["actions"][:, 0, smile] for act in acts])
    places = np.array([act["apex"] for act in acts])
    peaks = courses[np.arange(60), places]
    assert (peaks > .8 * courses.max(1)).all() and courses.max(1).min() > .4
    assert peaks.mean() > 2 * courses[:, [0, -1]].mean()
    assert np.mean(places < 5) > .15 and np.mean(places > 10) > .15      # not in the middle alone


def test_talking_moves_the_mouth_and_not_the_brows():
    loud, silent = (facs.perform("neutral", 1.0, 32, 8, np.random.default_rng(6), talk)["actions"]
                    for talk in (True, False))
    part, brow = facs.INDEX[25], facs.INDEX[4]
    assert loud[:, 0, part].max() > .3 > silent[:, 0, part].max() and loud[:, 0, brow].max() < .12


def test_the_readers_answer_from_what_they_are_told(tmp_path):
    folder = corpus.ensure(replace(TINY, label_noise=.3, clips=70), tmp_path, workers=1)
    truth = corpus.truth(folder).drop_duplicates("path").set_index("path")
    read = difficulty.difficulty(folder)
    told = dict(read.groupby("task")["input"].unique().map(list))
    assert told["image"] == ["emotion shown", "true actions", "raw pixels"]
    assert told["video"] == list(difficulty.READERS)
    bound = read[read["input"] == "emotion shown"]
    shown, predicted = truth.loc[bound["path"]], bound["predicted"].to_numpy()
    assert (predicted == shown["performed"]).all() and (predicted != shown["label"]).any()
    rise = np.array([.8, .6, .1, .1])[:, None]
    middle, whole = (difficulty.told(f"true actions, {what}", rise, 0, None)
                     for what in ("middle frame", "whole clip"))
    assert middle.tolist() == [.1]
    assert whole.round(3).tolist() == [.8, .4, .7, .6]    # largest, mean; first - second half
