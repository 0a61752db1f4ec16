"""The embedded data: actions, expressions in time, the renderer, and the corpora it writes."""
from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from s4d import bench
from s4d.files import OutputError
from s4d.config import Faces, Finetune, Source
from s4d.data import count_frames, index, read_clip
from s4d.emotions import EMOTIONS, EMOTIONS_11, ORDERS
from s4d.faces import FacesError, corpus, facs, oracle, people, plan, portrait, render, renderer, views
from s4d.faces.controls import controls
from s4d.faces.renderer import render as draw

TINY = Faces(img_size=32, photos=70, photo_subjects=12, clips=35, clip_subjects=10, speaking=4, speaking_subjects=2, compound=55,
             compound_subjects=10, num_frames=4, fps=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The tiny corpus, drawn by this process alone."""
    return corpus.ensure(TINY, tmp_path_factory.mktemp("one"), workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_workers_write_the_same_bytes_and_an_interrupted_build_continues(built, tmp_path):
    build = tmp_path / f"{TINY.folder}.part"
    (build / "parts").mkdir(parents=True)
    shard = corpus.shards(TINY)[0]
    for sample in shard[2]:
        (build / sample.corpus / sample.path).parent.mkdir(parents=True, exist_ok=True)
    corpus.draw_shard(TINY, build, *shard)                       # the first shard is there, as after an interruption
    stamp = (build / "affectnet" / shard[2][0].path).stat().st_mtime_ns
    folder = corpus.ensure(TINY, tmp_path, workers=2)
    assert contents(folder) == contents(built)
    assert (folder / "affectnet" / shard[2][0].path).stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir()] == [TINY.folder]
    assert corpus.ensure(TINY, tmp_path, workers=2) == folder


def test_another_seed_gives_other_pictures(built):
    other = replace(TINY, seed=1)
    assert other.folder != TINY.folder
    assert [s.label for s in plan.samples(other)] != [s.label for s in plan.samples(TINY)]


def test_the_datasets_own_readers_index_all_three(built):
    photos, speaking = index("affectnet", built / "affectnet"), index("voxceleb2", built / "voxceleb2")
    assert len(photos) == TINY.photos and set(photos["label"]) == set(EMOTIONS) and set(photos["split"]) == {"train", "val", "test"}
    assert len(speaking) == TINY.speaking and speaking["label"].isna().all()
    tested = []
    for fold in range(1, 6):
        clips = index("dfew", built / "dfew", fold=fold)
        assert len(clips) == TINY.clips and set(clips["label"]) == set(EMOTIONS)
        by = clips.groupby("split")["subject"].agg(set)
        assert not by["train"] & by["test"]
        tested += list(clips.loc[clips["split"] == "test", "path"])
    assert len(tested) == len(set(tested)) == TINY.clips
    compound = index("mafw", built / "mafw", fold=1)
    assert len(compound) == TINY.compound and set(compound["label"]) == set(EMOTIONS_11) and compound["subject"].notna().all()


def test_identities_are_disjoint_between_splits_and_corpora(built):
    photos = index("affectnet", built / "affectnet").groupby("split")["subject"].agg(set)
    assert not (photos["train"] & photos["test"] or photos["train"] & photos["val"] or photos["test"] & photos["val"])
    rows = plan.samples(TINY)
    people_of = {c: {s.identity for s in rows if s.corpus == c} for c in plan.CORPORA}
    assert len(set.union(*people_of.values())) == sum(map(len, people_of.values())) == plan.identities(TINY)


def test_labels_in_lists_and_folders_are_those_that_were_drawn(built):
    truth = corpus.truth(built).drop_duplicates("path").set_index("path")
    listed = pd.concat([pd.read_csv(built / f"dfew/EmoLabel_DataSplit/test(single-labeled)/set_{k}.csv") for k in range(1, 6)])
    for name, label in zip(listed["video_name"], listed["label"]):
        assert truth.loc[f"dfew/Clip/original/{name:05d}.mp4", "label"] == ORDERS["dfew"][label - 1]
    photos = truth[truth["corpus"] == "affectnet"]
    assert all(path.split("/")[2] == label for path, label in photos["label"].items())


def test_truth_has_one_row_for_each_frame_that_decodes(built):
    truth = corpus.truth(built)
    counts = truth.groupby("path").size()
    for path in [*counts.index[:3], *counts.index[counts > 1]]:
        assert count_frames(built / path) == counts[path]
    clip = counts.index[counts > 1][0]
    assert read_clip(built / clip).shape == (TINY.frames, 3, TINY.size, TINY.size)
    values = truth[[c for c in truth if c.startswith("AU")]]
    assert values.shape[1] == 2 * len(facs.ACTIONS) and values.min().min() >= 0 and values.max().max() <= 1
    assert (truth["apex"] < counts.reindex(truth["path"]).to_numpy()).all()


def test_class_counts_follow_the_real_shares_by_the_balance_exponent():
    real = plan.shares(plan.AFFECTNET, 1, EMOTIONS)
    assert np.allclose(real, np.array(list(plan.AFFECTNET.values())) / 283901)
    assert np.allclose(plan.shares(plan.AFFECTNET, 0, EMOTIONS), 1 / 7)
    labels = [s.label for s in plan.samples(replace(Faces(), aux_loss_weight=1.0)) if s.split == "train" and s.corpus == "affectnet"]
    assert labels.count("happiness") > 1.7 * labels.count("neutral")
    assert plan.apportion(100, np.array([3, 1, 1, 1]), 1).sum() == 100


PLAIN = dict(seed=21, tone=3.6, glasses=0, beard=0, stubble=0, fringe=0)
# Rows of a 64 px picture (0 is the top) in which each action lives: brows and forehead, lids, nose and cheeks, mouth and chin.
REGIONS = {**dict.fromkeys((1, 2), (8, 32)), 4: (10, 36), **dict.fromkeys((5, 7, 43), (22, 36)), 6: (22, 52), 9: (16, 56), 12: (30, 60),
           **dict.fromkeys((10, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28), (36, 64))}


@pytest.mark.parametrize("action", facs.ACTIONS)
def test_an_action_changes_its_own_region_and_leaves_far_ones_alone(action):
    still, moved = render(people(1, **PLAIN), np.stack([facs.sheet({}), facs.sheet({action: 1})])).float()
    change = (moved - still).abs().mean((0, 2))                  # by row of the picture
    top, bottom = REGIONS[action]
    inside = change[top:bottom].sum()
    assert change.max() > 4 and inside > 0.95 * change.sum(), f"{inside / change.sum():.2f} of the change lies in its region"


# (action, control, how it moves): what each action does to the points that the face is drawn from.
MOVES = [(1, "b1", 1), (2, "b2", 1), (4, "b4", 1), (4, "bx", -1), (4, "frown", 1), (5, "uh", 1), (6, "cheek", 1), (6, "crow", 1), (6, "lh", -1),
         (7, "lh", -1), (7, "uh", -1), (9, "nosew", 1), (9, "nlf", 1), (9, "ala", 1), (10, "yu", 1), (10, "nlf", 1), (12, "up", 1), (12, "cx", 1),
         (12, "nlf", 1), (14, "dimple", 1), (15, "down", 1), (15, "mario", 1), (16, "yl", -1), (17, "chinw", 1), (17, "y0", 1), (18, "cx", -1),
         (18, "pucker", 1), (20, "cx", 1), (22, "pout", 1), (22, "cx", -1), (23, "tu", -1), (23, "cx", -1), (24, "press", 1), (24, "tl", -1),
         (25, "part", 1), (26, "jaw", 1), (27, "jaw", 1), (28, "tu", -1), (43, "uh", -1)]


@pytest.mark.parametrize("action, control, sign", MOVES)
def test_an_action_moves_the_points_that_it_should(action, control, sign):
    person = people(1, **PLAIN)
    of = lambda level: getattr(controls(person, torch.from_numpy(facs.sheet({action: level}))[None], torch.zeros(1, 2)), control)
    still, half, full = (of(v).mean().item() for v in (0, .5, 1))
    assert sign * (half - still) > 0 and sign * (full - half) >= 0


def test_the_mouth_opens_in_the_picture_and_the_lids_close():
    person = people(1, **PLAIN)
    still, jaw, shut = render(person, np.stack([facs.sheet({}), facs.sheet({25: 1, 26: 1}), facs.sheet({43: 1})]), size=96).float().mean(1)
    lips = (slice(68, 86), slice(40, 56))
    assert jaw[lips].min() < still[lips].min() - 20              # the cavity is darker than closed lips
    eyes = (slice(40, 50), slice(24, 72))
    assert shut[eyes].std() < .8 * still[eyes].std()             # no white, no iris


def test_left_is_right_in_the_mirror():
    person = people(1, **PLAIN, asymmetry=0, part=0)
    light = views(1)
    light["light"] = torch.tensor([[0., .5, .8]])
    for action in (2, 6, 12, 14, 43):
        still, left, right = render(person, np.stack([facs.sheet({}), *(facs.sheet({(action, s): 1}) for s in ("left", "right"))]), light).float()
        left, right = (left - still).abs().mean(0), (right - still).abs().mean(0)        # skin and background differ, changes mirror
        assert (left - right.flip(-1)).abs().sum() < .3 * left.sum() and (left - right).abs().sum() > 1.3 * left.sum()


def test_nothing_leaves_the_range_of_colours():
    crowd, rng = people(6, seed=4), np.random.default_rng(0)
    wild = draw(crowd, torch.from_numpy(rng.uniform(0, 1, (6, 2, 23)).astype(np.float32)), views(6, yaw=35.0, pitch=-20.0, nuisance=1.0), 64)
    assert bool(wild.isfinite().all()) and 0 <= wild.min() and wild.max() <= 1


def test_a_turn_played_backwards_is_the_turn_of_the_other_emotion():
    first, then = (facs.draw(e, 1.0, np.random.default_rng(k)) for k, e in enumerate(("disgust", "anger")))
    t = np.arange(16) / 8
    there, _ = facs.turn(first, then, t, 2.0, t.mean())
    back, _ = facs.turn(then, first, t, 2.0, t.mean())
    assert np.allclose(there, back[::-1], atol=1e-12) and not np.allclose(there, back, atol=.1)
    long = facs.perform("anger", 1.0, 64, 32, np.random.default_rng(2), before="disgust")["intensity"]
    assert 16 < (long > .5).sum() < 40                           # either emotion has about half of the clip
    act = facs.perform("anger", 1.0, 16, 8, np.random.default_rng(1), before="disgust")
    nose, brow = act["actions"][:, 0, facs.INDEX[9]], act["actions"][:, 0, facs.INDEX[4]]
    assert nose.argmax() < 8 <= act["apex"] and brow[act["apex"]] > .5 * brow.max()


def test_the_gap_goes_from_a_photo_held_still_to_far():
    rng = np.random.default_rng(0)
    held = facs.perform("fear", 1.0, 16, 8, rng, life=0.0)["actions"]
    assert np.allclose(held, held[:1])
    near, far = (plan.distance(replace(TINY, gap=g)) for g in (0.0, 1.0))
    assert near.intensity == TINY.intensity and near.speech == near.motion == near.order == near.life == 0 and near.pose == TINY.pose
    assert far.intensity[1] < near.intensity[0] and far.pose == 3 * near.pose and far.crf > near.crf and far.label_noise > near.label_noise
    frames = corpus.preview(replace(TINY, gap=0.0, num_frames=6), "surprise", seed=3).astype(float)
    assert np.abs(np.diff(frames, axis=0)).max() <= 1            # rounding at most
    assert np.abs(np.diff(corpus.preview(replace(TINY, gap=1.0, num_frames=6), "surprise", seed=3).astype(float), axis=0)).mean() > 1


def test_labels_err_as_often_as_asked():
    rows = plan.samples(replace(Faces(), label_noise=.1, gap=.5))
    for name, share in (("affectnet", .1), ("dfew", .2)):
        of = [s for s in rows if s.corpus == name]
        wrong = [s for s in of if s.performed != s.label]
        assert abs(len(wrong) / len(of) - share) < 4 * (share * (1 - share) / len(of)) ** .5
        assert all(s.performed == facs.NEIGHBOUR[s.label] for s in wrong)
    turning = [s for s in rows if s.before]
    assert turning and all(facs.TURNS[s.performed] == s.before and s.corpus in ("dfew", "mafw") for s in turning)


def test_one_sided_actions_move_one_side():
    person = people(1, seed=21, glasses=0, beard=0)
    still, left = render(person, np.stack([facs.sheet({}), facs.sheet({(12, "left"): 1})])).float()
    change = (left - still).abs().mean((0, 1))
    assert change[36:].sum() > 2.5 * change[:28].sum()            # the subject's left is on the picture's right


def test_yaw_turns_the_head_and_rows_must_match():
    person, pose = people(1, seed=3), views(2, yaw=[-25.0, 25.0])
    a, b = render(person, np.zeros((2, 2, 23)), pose).float()
    assert (a - b).abs().mean() > 5 and (a - b.flip(-1)).abs().mean() < (a - b).abs().mean()
    with pytest.raises(FacesError, match="2 identities for 3 frames"):
        render(people(2), np.zeros((3, 2, 23)))
    with pytest.raises(FacesError, match=r"shape \[1, 23\]"):
        render(person, np.zeros((1, 23)))
    with pytest.raises(FacesError, match="size 16"):
        render(person, np.zeros((1, 2, 23)), size=16)
    with pytest.raises(FacesError, match="unknown property 'noze'"):
        people(1, noze=1)


def test_expressions_rise_and_fall_within_the_clip():
    rng, peaks, ends, places = np.random.default_rng(0), [], [], []
    for _ in range(60):
        act = facs.perform("happiness", 1.0, 16, 8, rng)
        smile = act["actions"][:, 0, facs.INDEX[12]]
        assert smile[act["apex"]] > .8 * smile.max() > .4
        places.append(act["apex"])
        peaks.append(smile[act["apex"]])
        ends.append((smile[0] + smile[-1]) / 2)
    assert np.mean(peaks) > 2 * np.mean(ends)
    assert np.mean(np.array(places) < 5) > .15 and np.mean(np.array(places) > 10) > .15      # anywhere, not in the middle alone
    assert facs.ramp(np.array([-1, 0, .5, 1, 2])).tolist() == [0, 0, .5, 1, 1]
    quiet = facs.perform("neutral", 1.0, 16, 8, rng)
    assert set(quiet["phase"]) == {"neutral"} and not quiet["intensity"].any()


def test_talking_moves_the_mouth_and_not_the_brows():
    loud, silent = (facs.perform("neutral", 1.0, 32, 8, np.random.default_rng(6), talk) for talk in (True, False))
    part, brow = facs.INDEX[25], facs.INDEX[4]
    assert loud["actions"][:, 0, part].max() > .3 > silent["actions"][:, 0, part].max()
    assert loud["actions"][:, 0, brow].max() < .12


@pytest.mark.parametrize("change, message", [
    ({"photo_subjects": 0}, "photo_subjects = 0"), ({"img_size": 16}, "img_size = 16"), ({"img_size": 33}, "even number"),
    ({"img_size": 256}, "img_size = 256"),
    ({"intensity": (-0.1, 1.0)}, "intensity"), ({"num_frames": 1}, "num_frames = 1"), ({"gap": 1.5}, "gap = 1.5"),
    ({"class_balance": 2.0}, "class_balance = 2.0"), ({"clips": 10}, "clips = 10")])
def test_settings_that_cannot_be_drawn_are_named(change, message, tmp_path):
    with pytest.raises(FacesError, match=message):
        corpus.ensure(replace(TINY, **change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_identities_than_samples_is_fine():
    many = replace(TINY, photo_subjects=500, clip_subjects=100, speaking_subjects=50)
    assert len(plan.samples(many)) == TINY.photos + TINY.clips + TINY.compound + TINY.speaking


def test_a_folder_that_cannot_be_written_and_a_missing_corpus(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write the corpus"):
        corpus.ensure(TINY, tmp_path / "file")
    if os.geteuid():                                             # root may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="permission denied"):
            corpus.ensure(TINY, tmp_path / "locked")
    with pytest.raises(FacesError, match="no truth.csv.gz"):
        corpus.truth(tmp_path)


def test_equal_frames_give_equal_bytes_every_time(tmp_path):
    """With x264's macroblock tree on, repeats in one process differ, depending on what lies in memory."""
    actions, who = facs.perform("happiness", 1.0, 16, 8, np.random.default_rng(49), True)["actions"], people(1, seed=49)     # sensitive
    turn = [dict(yaw=float(4 * np.sin(t / 3)), pitch=float(2 * np.cos(t / 4))) for t in range(16)]
    frames = np.concatenate([render(who, a[None], views(1, **v), size=64).numpy() for a, v in zip(actions, turn)]).transpose(0, 2, 3, 1)
    rng, litter, found = np.random.default_rng(0), [], set()
    for _ in range(150):
        litter = (litter + [rng.bytes(int(rng.integers(1, 200_000)))])[-40:]
        corpus.write_clip(tmp_path / "clip.mp4", frames, 8)
        found.add((tmp_path / "clip.mp4").read_bytes())
    assert len(found) == 1


def test_every_action_of_the_seven_emotions_can_be_moved_by_hand():
    taking_part = {a for e in EMOTIONS for a, *_ in facs.PROTOTYPES[e]} | {a for a, _ in facs.ALTERNATIVES["anger"]}
    assert taking_part == set(portrait.SLIDERS) and {10, 23, 24, 25} <= taking_part


def test_faces_are_drawn_on_one_thread_and_the_number_is_restored(monkeypatch):
    before, inside = torch.get_num_threads(), []
    rays = renderer.camera_rays
    monkeypatch.setattr(renderer, "camera_rays", lambda *a: inside.append(torch.get_num_threads()) or rays(*a))
    torch.set_num_threads(2)
    try:
        assert portrait.portrait(people(1, seed=1), {12: 1}, size=32).size == (32, 32)
        with pytest.raises(FacesError, match="give 32 to 224"):
            portrait.portrait(people(1, seed=1), {12: 1}, size=8)
        assert inside == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_bench_measures_photos_and_clips_at_both_sizes():
    table = bench.faces(seconds=.01, batches=(4,))
    assert table[["task", "pixels", "batch"]].values.tolist() == [["photos", 64, 4], ["clips", 64, 4], ["photos", 160, 4], ["clips", 160, 4]]
    assert (table["frames_per_second"] > 0).all() and (table["ratio"] > 0).all()
    assert table["frames_per_second"][0] > table["frames_per_second"][2]          # six times the pixels
    slow = bench.interleaved({"a": lambda: None, "b": lambda: time.sleep(.01)}, .05, torch.device("cpu"))
    assert slow["b"] > .009 > slow["a"]


def test_a_gpu_draws_only_large_corpora(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert corpus.device(Faces()).type == "cpu" and corpus.device(replace(Faces(), clips=20000)).type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert corpus.device(replace(Faces(), clips=20000)).type == "cpu"


def test_the_readers_answer_from_what_they_are_told(tmp_path):
    folder = corpus.ensure(replace(TINY, label_noise=.3, clips=70), tmp_path, workers=1)
    truth, read = corpus.truth(folder).drop_duplicates("path").set_index("path"), oracle.difficulty(folder)
    for task, inputs in oracle.INPUTS.items():
        assert set(read.loc[read["task"] == task, "input"]) == set(inputs)
    bound = read[read["input"] == oracle.BOUND]
    shown = truth.loc[bound["path"]]
    assert (bound["predicted"].to_numpy() == shown["performed"]).all() and (bound["predicted"].to_numpy() != shown["label"]).any()
    rise = pd.DataFrame({"path": ["a"] * 4 + ["b"] * 4, "AU1_L": [0, .2, .9, .4, .8, .6, .1, .1]})
    middle, whole = oracle.course(rise, pd.Index(["AU1_L"]))["b"]
    assert middle.tolist() == [.1] and whole.round(3).tolist() == [.8, .4, .7, .6]      # largest, mean; first half minus second half


class Moving(torch.nn.Module):
    """Answers the second class for a clip in which anything changes, the first for a still one."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward_features(self, x):
        return x.diff(dim=2).abs().amax((1, 2, 3, 4))[:, None]

    def forward_head(self, features, task):
        return torch.cat([torch.full_like(features, 1e-3), features, torch.zeros(len(features), 5) - 1], 1)


def test_a_middle_frame_stands_still(built):
    source = Source("dfew", str(built / "dfew"), 1)
    cfg = Finetune(None, source, tasks=("video",), img_size=TINY.size, num_frames=4, sampling_rate=1, num_workers=0)
    run = SimpleNamespace(load=Moving)
    read = oracle.frame_and_clip(run, cfg, "model").set_index("input")["predicted"]
    assert set(read["model, middle frame"]) == {EMOTIONS[0]} and set(read["model, whole clip"]) == {EMOTIONS[1]}
