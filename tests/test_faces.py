"""The embedded data: actions, expressions in time, the renderer, and the corpora it writes."""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from s4d.artifacts import OutputError
from s4d.config import Faces
from s4d.data import count_frames, index, read_clip
from s4d.emotions import EMOTIONS, ORDERS
from s4d.faces import FacesError, corpus, facs, panel, people, plan, render, views

TINY = Faces(size=32, photos=70, photo_identities=12, clips=35, clip_identities=10, speaking=4, speaking_identities=2, compound=55,
             compound_identities=10, frames=4, fps=4)


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
    assert len(photos) == TINY.photos and set(photos["label"]) == set(EMOTIONS) and set(photos["split"]) == {"train", "validation", "test"}
    assert len(speaking) == TINY.speaking and speaking["label"].isna().all()
    tested = []
    for fold in range(1, 6):
        clips = index("dfew", built / "dfew", fold=fold)
        assert len(clips) == TINY.clips and set(clips["label"]) == set(EMOTIONS)
        by = clips.groupby("split")["subject"].agg(set)
        assert not by["train"] & by["test"]
        tested += list(clips.loc[clips["split"] == "test", "path"])
    assert len(tested) == len(set(tested)) == TINY.clips


def test_identities_are_disjoint_between_splits_and_corpora(built):
    photos = index("affectnet", built / "affectnet").groupby("split")["subject"].agg(set)
    assert not (photos["train"] & photos["test"] or photos["train"] & photos["validation"] or photos["test"] & photos["validation"])
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
    labels = [s.label for s in plan.samples(replace(Faces(), balance=1.0)) if s.split == "train" and s.corpus == "affectnet"]
    assert labels.count("happiness") > 1.7 * labels.count("neutral")
    assert plan.apportion(100, np.array([3, 1, 1, 1]), 1).sum() == 100


@pytest.mark.parametrize("action, rows", [(12, (38, 54)), (26, (40, 64)), (43, (18, 36)), (4, (12, 32))])
def test_an_action_moves_its_own_part_of_the_face(action, rows):
    person = people(1, seed=21, tone=3.6, glasses=0, beard=0, fringe=0)
    still, moved = render(person, np.stack([facs.sheet({}), facs.sheet({action: 1})])).float()
    change = (moved - still).abs().mean((0, 2))                  # by row of the picture
    assert change[rows[0]:rows[1]].sum() > 0.7 * change.sum() and change.max() > 4


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
    rng, peaks, ends = np.random.default_rng(0), [], []
    for _ in range(40):
        act = facs.perform("happiness", 1.0, 16, 8, rng)
        smile = act["actions"][:, 0, facs.INDEX[12]]
        assert smile[act["apex"]] > .8 * smile.max() and 3 <= act["apex"] <= 12
        peaks.append(smile[act["apex"]])
        ends.append((smile[0] + smile[-1]) / 2)
    assert np.mean(peaks) > 2 * np.mean(ends)
    assert facs.ramp(np.array([-1, 0, .5, 1, 2])).tolist() == [0, 0, .5, 1, 1]
    quiet = facs.perform("neutral", 1.0, 16, 8, rng)
    assert set(quiet["phase"]) == {"neutral"} and not quiet["intensity"].any()


def test_talking_moves_the_mouth_and_not_the_brows():
    loud, silent = (facs.perform("neutral", 1.0, 32, 8, np.random.default_rng(5), talk) for talk in (True, False))
    part, brow = facs.INDEX[25], facs.INDEX[4]
    assert loud["actions"][:, 0, part].max() > .3 > silent["actions"][:, 0, part].max()
    assert loud["actions"][:, 0, brow].max() < .1


@pytest.mark.parametrize("change, message", [
    ({"photo_identities": 0}, "photo_identities = 0"), ({"size": 16}, "size = 16"), ({"size": 33}, "even number"),
    ({"size": 256}, "size = 256"),
    ({"intensity": (-0.1, 1.0)}, "intensity"), ({"frames": 1}, "frames = 1"), ({"gap": 1.5}, "gap = 1.5"),
    ({"balance": 2.0}, "balance = 2.0"), ({"clips": 10}, "clips = 10")])
def test_settings_that_cannot_be_drawn_are_named(change, message, tmp_path):
    with pytest.raises(FacesError, match=message):
        corpus.ensure(replace(TINY, **change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_identities_than_samples_is_fine():
    many = replace(TINY, photo_identities=500, clip_identities=100, speaking_identities=50)
    assert len(plan.samples(many)) == TINY.photos + TINY.clips + TINY.speaking


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


def test_the_panel_has_a_slider_for_every_action_of_the_seven_emotions():
    taking_part = {a for e in EMOTIONS for a, *_ in facs.PROTOTYPES[e]} | {a for a, _ in facs.ALTERNATIVES["anger"]}
    assert taking_part == set(panel.SLIDERS) and {10, 23, 24, 25} <= taking_part
    sliders = panel.panel(people(1, seed=1), size=32).children[1].children
    assert [s.description.split()[0] for s in sliders] == [*map(str, panel.SLIDERS), "yaw", "pitch"]


def test_a_portrait_is_drawn_on_one_thread_and_the_number_is_restored(monkeypatch):
    before, inside = torch.get_num_threads(), []
    monkeypatch.setattr(panel, "render", lambda *a: inside.append(torch.get_num_threads()) or render(*a))
    torch.set_num_threads(2)
    try:
        assert panel.portrait(people(1, seed=1), {12: 1}, size=32).size == (32, 32)
        with pytest.raises(FacesError, match="give 32 to 224"):
            panel.portrait(people(1, seed=1), {12: 1}, size=8)
        assert inside == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
