"""The command line: exit status, one clear message for what goes wrong; folders of your own."""
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import cut_off, damage, tiny_pretrain, write_affectnet, write_image, write_video

from s4d import config, training
from s4d.__main__ import main
from s4d.data import DatasetError, LabelError, index
from s4d.study.own import configure, study
from s4d.training import locate


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Return exit status, output and error text of a command."""
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def fails(capsys, *arguments, status: int = 2) -> str:
    """Return the one sentence that a failing command writes."""
    code, out, err = run(capsys, *arguments)
    assert code == status and err.startswith("s4d: ") and err.count("\n") == 1, (code, out, err)
    assert out == "" or '"kind"' in out                               # the settings of a training
    return err


def unframed(text: str) -> str:
    return " ".join(re.sub("[│|]", " ", text).split())


class Done:
    dir, provenance = Path("run"), {"seconds": 1.0}


@pytest.mark.parametrize("arguments, said", [
    (("pretrain", "--profile", "tiny"), "unknown profile 'tiny': choose one of smoke, sandbox"),
    (("finetune", "--profile", "smoke", "--init", "none.pth"), "no checkpoint 'none.pth'"),
    (("faces", "--profile", "paper"), "profile paper reads licensed data"),
    (("finetune", "--method", "both"), "no method 'both': --method takes one of dynamic"),
    (("audit", "afew", "x"), "unknown dataset 'afew'"), (("runs", "--runs", "x"), "holds no runs"),
    (("bench", "--device", "cuda"), "no CUDA device was found: choose --device cpu")])
def test_wrong_values_are_one_sentence(capsys, monkeypatch, arguments, said):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert said in fails(capsys, *arguments)


@pytest.mark.parametrize("arguments, named", [
    (("train",), "train"), ((), "faces"), (("audit", "dfew", "x", "--fold-no", "1"), "--fold-no"),
    (("predict", "a.jpg"), "--run"), (("pretrain", "--epochz", "3"), "--epochz"),
    (("pretrain", "--epochs", "ten"), "ten"), (("pretrain", "--method", "s4d"), "--method"),
    (("pretrain", "--epochs", "-1"), "Pretrain.epochs is -1.0: expected float from")])
def test_what_cannot_be_parsed_is_named(capsys, arguments, named):
    status, _, err = run(capsys, *arguments)
    assert status == 2 and named in unframed(err) and "Traceback" not in err


def test_missing_data_is_one_sentence_and_leaves_nothing(capsys, tmp_path):
    for command in (("pretrain", "--profile", "paper"), ("finetune", "--profile", "smoke"),
                    ("reproduce", "--profile", "paper", "--out", tmp_path / "out")):
        error = fails(capsys, *command, "--data", tmp_path, "--runs", tmp_path / "runs")
        assert "there is no folder" in error
    assert not list(tmp_path.iterdir())


def test_help_lists_every_field_and_needs_no_torch(capsys):
    for stage, cls in (("pretrain", config.Pretrain), ("finetune", config.Finetune)):
        text = unframed(run(capsys, stage, "--help")[1])
        for name in {f.name for f in dataclasses.fields(cls)} - {"image", "video", "init"}:
            assert f"--{name.replace('_', '-')}" in text
    code = ("import sys\nfrom s4d.__main__ import main\ntry:\n    main(['--help'])\n"
            "finally:\n    assert 'torch' not in sys.modules")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env,
                             check=True).stdout
    assert "audit" in printed and "export" in printed


@pytest.fixture
def smoke(monkeypatch) -> list:
    """What was trained."""
    seen = []
    monkeypatch.setattr(training, "train", lambda cfg, runs: seen.append((cfg, runs)) or Done)
    return seen


def test_flags_reach_the_configuration(capsys, tmp_path, smoke):
    common = ("finetune", "--profile", "smoke", "--data", tmp_path)
    base = config.profile("smoke", data=str(tmp_path))
    assert run(capsys, *common, "--runs", "r", "--method", "dynamic", "--init", "none", "--lr",
               "0.5", "--image.num-classes", "8")[0] == 0
    image = config.update(base.finetune.image, num_classes=8)
    wanted = config.update(base.finetune, tasks=("video",), num_experts=0, lr=0.5, init=None,
                           image=image)
    assert smoke == [(wanted, "r")]
    status, out, _ = run(capsys, *common)
    assert status == 0 and smoke[1][0] == config.update(base.finetune, init=base.pretrain)
    assert config.from_dict(json.loads(out[: out.rindex("}") + 1])) == smoke[1][0]


def test_under_torchrun_one_process_prints_and_errors_name_theirs(capsys, monkeypatch, tmp_path,
                                                                  smoke):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in ("0", "3"):
        monkeypatch.setenv("RANK", rank)
        status, out, err = run(capsys, "pretrain", "--profile", "smoke", "--data", tmp_path)
        assert status == 0 and err == "" and bool(out) == (rank == "0")
    assert run(capsys, "pretrain", "--profile", "tiny")[2].startswith("s4d, process 3: unknown")


def test_evaluate_prints_what_the_predictions_say(capsys, finished, tmp_path):
    status, out, err = run(capsys, "evaluate", finished.dir, finished.dir, "--scores",
                           tmp_path / "s.csv")
    assert status == 0 and err == "" and out.count("14 samples, 0 unreadable") == 4
    scores = pd.read_csv(tmp_path / "s.csv").set_index(["part", "task", "split", "metric"])["value"]
    for (task, split), rows in finished.predictions().groupby(["task", "split"]):
        war = (rows.label == rows.predicted).mean()
        for part in ("run 1", "run 2", "mean of folds"):
            assert scores[part, task, split, "WAR"] == pytest.approx(war)
    assert "after each epoch" not in out
    copy = Path(shutil.copytree(finished.dir, tmp_path / "copy"))
    with open(copy / "metrics.jsonl", "a") as file:           # as --test-each-epoch writes it
        scores = {f"{t}_{m}": 0.25 for t in ("image", "video") for m in ("war", "uar")}
        file.write(json.dumps({"modality": "test", "epoch": 1, **scores}) + "\n")
    out = run(capsys, "evaluate", copy)[1]
    assert re.search(r"test after each epoch.*\n.* video_uar\n *1.0( +0.25){4}\n", out)


def test_evaluate_predicts_anew_and_keeps_features(capsys, finished, tmp_path):
    status, out, _ = run(capsys, "evaluate", finished.dir, "--views", "3", "2", "--features",
                         tmp_path / "f.npz", "--csv", tmp_path / "p.csv")
    assert status == 0 and ", val:" not in out
    with np.load(tmp_path / "f.npz") as f:
        features = f["run 1/video/features"]
    assert features.shape == (7, 128) and np.isfinite(features).all()
    stored = finished.predictions().query("split == 'test'")
    for task, rows in pd.read_csv(tmp_path / "p.csv").groupby("task"):
        old, new = (t[t["task"] == task].filter(like="prob_").to_numpy() for t in (stored, rows))
        assert (np.abs(new - old).max() < 1e-5) == (task == "image")
    assert "test_segments is 0" in fails(capsys, "evaluate", finished.dir, "--views", "0", "1")


def test_evaluate_counts_unreadable_samples_as_errors(capsys, mini, finished, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    (root / "affectnet/val/fear/000.jpg").write_bytes(b"")
    moved = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    settings = (moved / "config.json").read_text().replace(str(mini), str(root))
    (moved / "config.json").write_text(settings)
    status, out, err = run(capsys, "evaluate", moved, "--views", "1", "1")
    assert status == 1 and "image, test: 7 samples, 1 unreadable" in out
    assert err == "s4d: val/fear/000.jpg cannot be read: counted as an error\n"


def test_only_a_finished_finetuning_run_is_taken(capsys, finished, mini, tmp_path):
    unfinished = Path(shutil.copytree(finished.dir, tmp_path / "unfinished"))
    (unfinished / "provenance.json").unlink()
    pre = training.pretrain(tiny_pretrain(mini, epochs=0.34), tmp_path / "runs")
    for folder in (tmp_path / "none", unfinished, pre.dir):
        assert f"{folder} is not a finished fine-tuning run" in fails(capsys, "evaluate", folder)


def test_predict_judges_files_of_every_kind_and_names_the_others(capsys, finished, tmp_path):
    image, video = write_image(tmp_path / "a.png", 3), write_video(tmp_path / "v.mp4", 3, frames=9)
    for i in range(5):
        write_image(tmp_path / "frames" / f"{i}.jpg", 3)
    wrong = (damage(write_video(tmp_path / "d.mp4", 3, gop=4), 0.5, 0.8), tmp_path / "no.jpg",
             write_image(tmp_path / "tiny.png", width=8, height=8))
    status, out, err = run(capsys, "predict", image, video, tmp_path / "frames", *wrong,
                           "--run", finished.dir, "--along-time", "--json", tmp_path / "a.json",
                           "--picture", tmp_path / "p.png")
    assert status == 1 and "8 x 8 px" in err
    for line in err.splitlines():
        assert line.startswith("s4d: ") and "cannot be read: " in line
    said = json.loads((tmp_path / "a.json").read_text())
    assert set(said["unreadable"]) == set(map(str, wrong))
    assert {Path(answer["path"]).name: answer["task"] for answer in said["files"]} == {
        "a.png": "image", "v.mp4": "video", "frames": "video"}
    for answer in said["files"]:
        shares = [share for name, share in answer.items() if name.startswith("prob_") and share]
        assert sum(shares) == pytest.approx(1, abs=1e-4) and answer["path"] in out
    course = said["along_time"][str(video)]
    assert [r["frame"] for r in course] == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert course[0]["seconds"] == pytest.approx(1.5 / 8)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_predict_refuses_an_untrained_task_and_damaged_weights(capsys, finished, tmp_path):
    copy, image = shutil.copytree(finished.dir, tmp_path / "run"), write_image(tmp_path / "a.png")
    given = ("predict", image, "--run", copy)
    assert "expected a .png or .pdf file" in fails(capsys, *given, "--picture", "a.gif")
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, "tasks": ["video"]}))
    assert "was not trained on images: it cannot judge" in fails(capsys, *given)
    boxed = {**values, "image": {**values["image"], "crop_box": [0, 0, 500, 500]}}
    (copy / "config.json").write_text(json.dumps(boxed))
    status, _, err = run(capsys, *given)
    assert status == 1 and "too small for the box of 500 x 500 px" in err      # the run's own crop
    (copy / "config.json").write_text(json.dumps(values))
    (copy / "weights.safetensors").write_bytes(b"half")
    assert "weights.safetensors" in fails(capsys, *given)


def test_pack_decodes_once_and_again_what_changed(capsys, mini, tmp_path):
    root = Path(shutil.copytree(mini / "dfew", tmp_path / "dfew"))
    command = ("pack", "dfew", root, "--fold", "1", "--img-size", "32")
    assert run(capsys, *command)[0] == 0 and "21 samples" in run(capsys, *command)[1]
    (root / "Clip/original/00003.mp4").write_bytes(b"no clip")
    status, out, err = run(capsys, *command)
    assert status == 1 and "20 samples" in out and "00003.mp4 cannot be read" in err


def test_audit_prints_problems_and_says_so_by_its_status(capsys, tmp_path):
    command = ("audit", "affectnet", write_affectnet(tmp_path / "photos", 1, 1))
    status, out, _ = run(capsys, *command)
    assert status == 0 and "no problems" in out and "anger" in out
    (tmp_path / "photos/val/fear/000.jpg").write_bytes(b"")
    status, out, _ = run(capsys, *command, "--csv", tmp_path / "problems.csv")
    assert status == 1 and "val/fear/000.jpg: it is empty" in out and "1 problems" in out
    table = pd.read_csv(tmp_path / "problems.csv")
    assert table[["kind", "path"]].values.tolist() == [["empty", "val/fear/000.jpg"]]


def test_export_and_list_runs(capsys, finished, tmp_path):
    status, out, _ = run(capsys, "export", finished.dir, tmp_path / "released.pth")
    state = torch.load(tmp_path / "released.pth", weights_only=True)["model"]
    assert status == 0 and "released.pth" in out and any("moe_layer" in name for name in state)
    status, out, _ = run(capsys, "runs", "--runs", finished.dir.parent)
    assert status == 0 and finished.dir.name in out and "finished" in out


def test_interruptions_full_disks_and_defects(capsys, monkeypatch, mini, tmp_path):
    small = type("P", (), {"pretrain": tiny_pretrain(mini)})
    monkeypatch.setattr(config, "profile", lambda *_, **__: small)

    def fail(name: str, error: BaseException):
        def raises(*_):
            raise error
        monkeypatch.setattr(name, raises)
    other = ("--model", "s4d_nano_patch16_64", "--runs", tmp_path)
    assert "is of the other stage" in fails(capsys, "pretrain", *other)
    fail("os.replace", OSError(28, "No space left on device"))
    assert "no space left on device" in fails(capsys, "pretrain", "--runs", tmp_path).lower()
    assert not list(locate(small.pretrain, tmp_path).dir.glob("*.json"))
    fail("s4d.training.train", KeyboardInterrupt())
    assert "the same command continues" in fails(capsys, "pretrain", status=130)
    fail("s4d.training.train", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):                   # a defect, shown in full
        main(["pretrain"])


# --- folders of your own

def photos(root, *folders: str, count: int = 4, end: str = "jpg"):
    for k, folder in enumerate(folders):
        for i in range(count):
            path, seed = root / folder / f"{i:02d}.{end}", 100 * k + i
            if end == "jpg":
                write_image(path, seed, 40, 40)
            else:
                write_video(path, seed, 4, 40, 40)
    return root


def clips(root, *folders: str, count: int = 3):
    return photos(root, *folders, count=count, end="mp4")


def in_test_split(root) -> set[str]:
    return set(index("photos", root).query("split == 'test'")["path"])


def test_folders_are_matched_to_emotions_by_any_spelling(tmp_path):
    names = {"Joy": "happiness", "happy": "happiness", "1_sad": "sadness", "ANGRY": "anger",
             "frightened 2": "fear", "neutral": "neutral"}
    table = index("photos", photos(tmp_path, *names, ".cache/anger"))
    assert dict(zip(table["path"].str.split("/").str[0], table["label"], strict=True)) == names
    assert len(table) == 24 and table["subject"].isna().all()


@pytest.mark.parametrize("layout", ["{split}/{name}", "{name}/{split}"])
def test_split_folders_lie_above_or_below(tmp_path, layout):
    for split in ("Train", "val", "test"):
        folders = [layout.format(split=split, name=n) for n in ("happy", "sad")]
        photos(tmp_path / "faces", *folders, count=2)
    with pytest.raises(LabelError, match="unknown label 'faces' in the class folder"):
        index("photos", tmp_path)
    counts = index("photos", tmp_path / "faces").groupby(["split", "label"]).size().to_dict()
    assert counts == {(s, e): 2 for s in ("train", "val", "test") for e in ("happiness", "sadness")}
    photos(tmp_path / "no_test", "train/happy", "train/sad", "val/happy", "val/sad")
    assert set(index("photos", tmp_path / "no_test")["split"]) == {"train", "test"}


def test_without_splits_a_hash_decides_for_each_class_and_for_good(tmp_path):
    names = in_test_split(photos(tmp_path, "happy", "sad", "fear", count=10))
    of = {c: frozenset(n[-6:] for n in names if n.startswith(c)) for c in ("happy", "sad", "fear")}
    assert {len(n) for n in of.values()} == {2} and names == in_test_split(tmp_path)
    assert len(set(of.values())) > 1, "not the first files of each folder"


@pytest.mark.parametrize("how", ["separator", "folders", "list"])
def test_known_subjects_stay_on_one_side(tmp_path, how):
    rows = ["path,subject"]
    for subject in ("anna", "bo", "cem", "di", "eve"):
        for name in (f"{e}/{subject}{'/' if how == 'folders' else '_'}{i}.jpg"
                     for e in ("happy", "sad") for i in range(3)):
            write_image(tmp_path / name, 0, 40, 40)
            rows.append(f"{name},{subject}")
    if how == "list":
        (tmp_path / "subjects.csv").write_text("\n".join(rows))
    table = index("photos", tmp_path, subject_separator="_" if how == "separator" else None)
    assert set(table["subject"]) == {"anna", "bo", "cem", "di", "eve"}
    assert (table.groupby("subject")["split"].nunique() == 1).all()
    assert table["split"].value_counts().to_dict() == {"train": 24, "test": 6}


def test_clips_are_files_or_folders_of_frames(tmp_path):
    photos(clips(tmp_path, "happy", "sad"), "happy/clip7", "sad/clip9")
    table = index("clips", tmp_path)
    assert {"happy/clip7", "sad/clip9", "sad/02.mp4"} <= set(table["path"]) and len(table) == 8
    photos(tmp_path, "test/sad/clip9")
    with pytest.raises(DatasetError, match="happy/00.mp4 in .* lies in no split folder and others"):
        index("clips", tmp_path)


@pytest.mark.parametrize("folders, text", [
    (("happy", "joy"), "holds one class, happiness"),
    (("happy", "cats"), "unknown label 'cats' in .*/cats/00.jpg: expected one of neutral, happine"),
    ((".",), "00.jpg in .* lies in no class folder: .* happy/00.jpg"),
    (("test/happy", "test/sad"), "split folders for test alone: add train"),
    (("train/happy", "train/sad"), "split folders for train alone: add test"),
    (("train/happy/test", "train/sad"), "lies in folders test and train: leave one")])
def test_planted_mistakes_end_in_one_sentence(tmp_path, folders, text):
    with pytest.raises((DatasetError, LabelError), match=text) as raised:
        index("photos", photos(tmp_path, *folders))
    assert "\n" not in str(raised.value)


def test_mixed_folders_and_one_without_samples_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds 3 clips beside 8 photos, .* happy/00.mp4: give"):
        index("photos", clips(photos(tmp_path / "a", "happy", "sad"), "happy"))
    (photos(tmp_path / "b", "happy", "sad") / "angry").mkdir()
    with pytest.raises(DatasetError, match="class folder angry in .* holds no photos: fill"):
        index("photos", tmp_path / "b")


def test_the_vocabulary_is_the_smallest_that_has_the_classes(tmp_path):
    seven, eight = photos(tmp_path / "a", "happy", "sad"), photos(tmp_path / "b", "joy", "contempt")
    eleven, given = clips(tmp_path / "c", "happy", "helpless"), dict(profile="smoke", steps=5)
    assert configure(eight, **given).image.num_classes == 8
    moving, both = configure(None, eleven, **given), configure(seven, eleven, **given)
    assert moving.video.num_classes == 11 and moving.tasks == ("video",) and moving.image is None
    assert both.image.num_classes == 7 and both.tasks == ("image", "video") and both.num_experts
    with pytest.raises(DatasetError, match="no folder was given"):
        configure(profile="smoke")


def test_an_unreadable_file_stops_before_training(tmp_path):
    cut_off(photos(tmp_path / "own", "happy", "sad") / "sad/02.jpg", 0.3)
    with pytest.raises(DatasetError, match="1 of the photos in .* cannot be used, the first is "
                                           "sad/02.jpg: it cannot be read: "):
        study(tmp_path / "own", profile="smoke", runs=str(tmp_path / "runs"), steps=1)
    assert not list(tmp_path.glob("runs/*"))


def test_the_command_trains_both_scores_draws_and_says_what_the_audit_warns_of(tmp_path, capsys):
    root = photos(tmp_path / "photos", "happy", "sad", count=6)
    twin = next(p for p in in_test_split(root) if p.startswith("happy"))
    (root / "happy/twin.jpg").write_bytes((root / twin).read_bytes())
    moving = clips(tmp_path / "clips", "happy", "sad", count=4)
    command = ["own", "--photos", str(root), "--clips", str(moving), "--profile", "smoke",
               "--steps", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    for _ in range(2):                                       # found again, not trained again
        assert main(command) == 1 and len(list((tmp_path / "runs").iterdir())) == 1
    out, err = capsys.readouterr()
    assert "image, test" in out and "video, test" in out and "equal bytes under 2 names" in err
    files = list((tmp_path / "out").iterdir())
    assert {p.name for p in files} == {"scores.csv", "predictions.csv", *(
        f"{name}.{end}" for name in ("photos", "clips", "confusion", "curves")
        for end in ("png", "pdf"))}
    assert all(p.stat().st_size > 100 for p in files)
    predictions = pd.read_csv(tmp_path / "out/predictions.csv").query("task == 'image'")
    assert set(predictions["path"]) == in_test_split(root)
    scores = pd.read_csv(tmp_path / "out/scores.csv").set_index(["task", "metric"])
    war = scores.loc["image", "WAR"]
    right = (predictions["label"] == predictions["predicted"]).mean()
    assert war["value"] == pytest.approx(right) and war["low"] <= war["value"] <= war["high"]
    assert main(["own", "--photos", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
