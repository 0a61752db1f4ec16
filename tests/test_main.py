"""The command line: exit status, and one sentence on the error stream for whatever goes wrong."""
from __future__ import annotations

import dataclasses
import inspect
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
from conftest import tiny_finetune, tiny_pretrain, write_affectnet, write_image, write_video

from s4d import config, training
from s4d.__main__ import key_value, main
from s4d.training import locate


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, output and error text of a command."""
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    return status, said.out, said.err


def fails(capsys, *arguments, status: int = 2) -> str:
    """The one sentence that a failing command says."""
    code, out, err = run(capsys, *arguments)
    assert code == status and err.startswith("s4d: ") and err.count("\n") == 1 and "Traceback" not in err, (code, out, err)
    assert out == "" or arguments[0] in ("pretrain", "finetune")      # which print their configuration first
    return err


def test_wrong_command_lines_are_one_sentence(capsys):
    assert "unknown profile 'tiny': choose one of smoke, sandbox" in fails(capsys, "pretrain", "--profile", "tiny")
    assert "unknown profile 'tiny'" in fails(capsys, "faces", "--profile", "tiny")
    assert "no checkpoint 'none.pth'" in fails(capsys, "finetune", "--profile", "smoke", "--init", "none.pth")
    assert "profile paper reads licensed data" in fails(capsys, "faces", "--profile", "paper")
    assert "parameter 'x' is not of the form name=value" in fails(capsys, "reproduce", "-p", "x")
    assert "n_jobs is 0: expected the number of runs" in fails(
        capsys, "reproduce", "--profile", "smoke", "--n-jobs", "0")
    assert key_value("n=3") == ("n", 3) and key_value("s=a=b") == ("s", "a=b")


@pytest.mark.parametrize("arguments, named", [
    (("train",), "train"), ((), "faces"), (("audit", "dfew", "x", "--fold-no", "1"), "--fold-no"),
    (("predict", "a.jpg"), "--run"), (("pretrain", "--epochz", "3"), "--epochz"),
    (("pretrain", "--epochs", "ten"), "ten"), (("finetune", "--method", "both"), "both"),
    (("pretrain", "--epochs", "-1"), "Pretrain.epochs is -1.0: expected a number above 0")])
def test_what_tyro_cannot_read_is_named(capsys, arguments, named):
    status, _, err = run(capsys, *arguments)
    said = " ".join(err.replace("│", " ").replace("|", " ").split())
    assert status == 2 and named in said and "Traceback" not in err


@pytest.mark.parametrize("stage, flags, said", [
    ("finetune", ("--image-randaugment", "m11-n4"), "Finetune.image_randaugment cannot be used: unknown RandAugment 'm11-n4'"),
    ("finetune", ("--randaugment", "foo"), "unknown RandAugment 'foo': expected m<magnitude 0..10>-n<operations>, as in m7-n4"),
    ("finetune", ("--model", "foo"), "unknown model 'foo': choose one of s4d_nano_patch16_64"),
    ("finetune", ("--model", "s4d_mae_nano_patch16_64"), "a model of the other stage: finetune takes s4d_nano_patch16_64"),
    ("pretrain", ("--model", "s4d_nano_patch16_64"), "a model of the other stage: pretrain takes s4d_mae_nano_patch16_64"),
    ("pretrain", ("--betas", "2", "3"), "betas are (2.0, 3.0): expected two numbers from 0 and below 1"),
    ("finetune", ("--seed", str(2 ** 63)), f"seed is {2 ** 63}: expected a whole number below 2 ** 63")])
def test_options_that_no_training_can_follow_are_one_sentence(capsys, monkeypatch, mini, tmp_path, stage, flags, said):
    small = type("P", (), {"pretrain": tiny_pretrain(mini), "finetune": tiny_finetune(mini)})
    monkeypatch.setattr(config, "profile", lambda *_, **__: small)
    init = ("--init", "none") if stage == "finetune" else ()
    assert said in fails(capsys, stage, *init, "--runs", tmp_path, *flags)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_missing_data_and_models_are_one_sentence(capsys, tmp_path):
    assert "there is no folder" in fails(capsys, "pretrain", "--profile", "paper", "--data", tmp_path, "--runs", tmp_path / "runs")
    assert "unknown dataset 'afew'" in fails(capsys, "audit", "afew", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_help_lists_every_field(capsys):
    status, out, _ = run(capsys, "finetune", "--help")
    assert status == 0 and "--layer-decay" in out and "--max-unreadable" in out
    for stage, cls in (("pretrain", config.Pretrain), ("finetune", config.Finetune)):
        text = " ".join(re.sub("[│|]", " ", run(capsys, stage, "--help")[1]).split())
        source = inspect.getsource(cls.__base__) + inspect.getsource(cls)
        comments = dict(re.findall(r"^    (\w+): [^#\n]+# (.+)$", source, re.M))
        assert set(comments) == {f.name for f in dataclasses.fields(cls)}
        for name, comment in comments.items():
            assert name in ("image", "video", "init") or comment in text, name
    status, out, _ = run(capsys, "--help")
    assert status == 0 and all(c in out for c in ("faces", "audit", "evaluate", "predict", "reproduce", "verify"))


def test_flags_reach_the_configuration(capsys, tmp_path, monkeypatch):
    seen = []

    class Done:
        dir, provenance = tmp_path / "run", {"seconds": 1.0}
    monkeypatch.setattr(training, "train", lambda cfg, runs: seen.append((cfg, runs)) or Done)
    assert run(capsys, "finetune", "--profile", "smoke", "--data", "d", "--runs", "r", "--method", "dynamic", "--init", "none",
               "--lr", "0.5", "--image.num-classes", "8")[0] == 0
    cfg, runs = seen[0]
    wanted = config.profile("smoke", data="d").finetune
    image = config.update(wanted.image, num_classes=8)
    assert cfg == config.update(wanted, tasks=("video",), num_experts=0, lr=0.5, init=None, image=image) and runs == "r"
    status, out, _ = run(capsys, "finetune", "--profile", "smoke", "--data", "d")
    smoke = config.profile("smoke", data="d")
    assert status == 0 and seen[1][0] == config.update(smoke.finetune, init=smoke.pretrain)
    assert config.from_dict(json.loads(out[: out.rindex("}") + 1])) == seen[1][0]


def test_evaluate_prints_what_the_predictions_say(capsys, finished, tmp_path):
    status, out, err = run(capsys, "evaluate", finished.dir, "--scores", tmp_path / "s.csv", "--resamples", "50")
    assert status == 0 and err == "" and out.count("7 samples, 0 unreadable") == 4
    table, scores = finished.predictions(), pd.read_csv(tmp_path / "s.csv")
    assert set(zip(scores.task, scores.split)) == {(t, s) for t in ("image", "video") for s in ("test", "val")}
    for (task, split), rows in table.groupby(["task", "split"]):
        war = scores[(scores.task == task) & (scores.split == split) & (scores.metric == "WAR")].value.item()
        assert war == pytest.approx((rows.label == rows.predicted).mean())
    assert "last epoch" in out and out.count("not recorded: train with --test-each-epoch") == 4


def test_evaluate_predicts_anew_with_other_views_and_keeps_features(capsys, finished, tmp_path):
    status, out, _ = run(capsys, "evaluate", finished.dir, "--views", "3x2", "--features", tmp_path / "f.npz", "--csv", tmp_path / "p.csv",
                         "--split", "test", "--resamples", "20")
    assert status == 0
    with np.load(tmp_path / "f.npz") as f:
        name = finished.dir.name if f"{finished.dir.name}/video/path" in f else "fold 1"
        assert f[f"{name}/video/features"].shape == (7, 128) and np.isfinite(f[f"{name}/video/features"]).all()
    again, stored = pd.read_csv(tmp_path / "p.csv"), finished.predictions().query("split == 'test'")
    of = lambda t, task: t[t.task == task].filter(like="prob_").to_numpy()
    assert np.abs(of(again, "image") - of(stored, "image")).max() < 1e-5 < np.abs(of(again, "video") - of(stored, "video")).max()
    assert "expected segments x crops, as in 2x2" in fails(capsys, "evaluate", finished.dir, "--views", "two")
    assert "there is no folder" in fails(capsys, "evaluate", finished.dir, "--data", tmp_path / "moved")
    assert "resamples is 0: expected a number of resamples from 1" in fails(capsys, "evaluate", finished.dir, "--resamples", "0")


def test_evaluate_writes_parquet_where_pyarrow_is_installed(capsys, finished, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = fails(capsys, "evaluate", finished.dir, "--csv", tmp_path / "p.parquet")
    assert "need pyarrow, which is not installed: pip install pyarrow, or name a .csv file" in said
    written = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda self, path, index: written.append(len(self)) or path.write_bytes(b"PAR1"))
    status, _, _ = run(capsys, "evaluate", finished.dir, "--csv", tmp_path / "p.parquet", "--split", "test", "--resamples", "20")
    assert status == 0 and written == [14] and (tmp_path / "p.parquet").read_bytes() == b"PAR1"


def test_evaluate_reports_unreadable_samples_and_counts_them_as_errors(capsys, mini, finished, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    (root / "affectnet/val/fear/000.jpg").write_bytes(b"")
    status, out, err = run(capsys, "evaluate", finished.dir, "--data", root, "--split", "test", "--resamples", "20")
    assert status == 1 and "image, test: 7 samples, 1 unreadable" in out
    assert err == "s4d: val/fear/000.jpg could not be read: counted as an error\n"
    status, out, err = run(capsys, "evaluate", finished.dir, "--data", root, "--split", "test", "--skip-unreadable", "--resamples", "20")
    assert status == 1 and "image, test: 6 samples, 0 unreadable" in out and "left out" in err


@pytest.mark.parametrize("command", [("evaluate",), ("predict", "a.jpg", "--run")])
def test_what_is_no_finished_finetuning_run_is_refused(capsys, finished, mini, tmp_path, command):
    assert "is not a run: it has no config.json" in fails(capsys, *command, tmp_path / "none")
    unfinished = Path(shutil.copytree(finished.dir, tmp_path / "unfinished"))
    (unfinished / "provenance.json").unlink()
    assert "unfinished is not finished: call its training again" in fails(capsys, *command, unfinished)
    pre = training.pretrain(tiny_pretrain(mini, epochs=0.34), tmp_path / "runs")
    assert "is a pre-training" in fails(capsys, *command, pre.dir)


def test_predict_judges_files_of_every_kind(capsys, finished, tmp_path):
    image, video = write_image(tmp_path / "a.png", 3), write_video(tmp_path / "v.mp4", 3)
    for i in range(5):
        write_image(tmp_path / "frames" / f"{i}.jpg", 3)
    status, out, err = run(capsys, "predict", image, video, tmp_path / "frames", "--run", finished.dir)
    assert status == 0 and err == ""
    rows = [line.split() for line in out.splitlines() if str(tmp_path) in line]
    assert [(Path(r[0]).name, r[1]) for r in rows] == [("a.png", "image"), ("v.mp4", "video"), ("frames", "video")]
    for row in rows:
        assert sum(map(float, row[3:])) == pytest.approx(1, abs=0.01) and row[2] in ("neutral", "happiness", "sadness", "surprise", "fear",
                                                                                     "disgust", "anger")


def test_predict_writes_json_and_a_picture_and_follows_a_clip(capsys, finished, tmp_path):
    image, video = write_image(tmp_path / "a.png", 3), write_video(tmp_path / "v.mp4", 3, frames=9)
    (tmp_path / "e.jpg").write_bytes(b"")
    status, out, _ = run(capsys, "predict", image, video, tmp_path / "e.jpg", "--run", finished.dir, "--along-time", "--json",
                         tmp_path / "a.json", "--picture", tmp_path / "a.png2.png")
    assert status == 1
    said = json.loads((tmp_path / "a.json").read_text())
    assert [Path(f["path"]).name for f in said["files"]] == ["a.png", "v.mp4"] and list(said["unreadable"]) == [str(tmp_path / "e.jpg")]
    course = said["files"][1]["along_time"]
    assert [r["frame"] for r in course] == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5] and course[0]["seconds"] == pytest.approx(1.5 / 8)
    assert all(sum(r[e] for e in said["files"][1]["probabilities"]) == pytest.approx(1, abs=1e-4) for r in course)
    assert (tmp_path / "a.png2.png").read_bytes().startswith(b"\x89PNG")
    assert "expected a .png or .pdf file" in run(capsys, "predict", image, "--run", finished.dir, "--picture", tmp_path / "a.gif")[2]


def test_pack_decodes_once_and_again_what_changed(capsys, mini, tmp_path):
    root = Path(shutil.copytree(mini / "dfew", tmp_path / "dfew"))
    for _ in range(2):
        status, out, _ = run(capsys, "pack", "dfew", root, "--fold", "1", "--img-size", "32")
        assert status == 0 and "21 samples at 32 px" in out
    (root / "Clip/original/00003.mp4").write_bytes(b"no clip")
    status, out, err = run(capsys, "pack", "dfew", root, "--fold", "1", "--img-size", "32")
    assert status == 1 and "20 samples" in out and "00003.mp4 cannot be read" in err


def test_predict_names_the_files_that_cannot_be_read(capsys, finished, tmp_path):
    good, video = write_image(tmp_path / "a.png", 3), write_video(tmp_path / "v.mp4", 3, gop=4)
    content = bytearray(video.read_bytes())
    content[len(content) // 2: len(content) // 2 + 400] = b"\xa5" * 400
    video.write_bytes(bytes(content))
    (tmp_path / "e.jpg").write_bytes(b"")
    status, out, err = run(capsys, "predict", good, video, tmp_path / "e.jpg", tmp_path / "no.jpg", "--run", finished.dir)
    assert status == 1 and "a.png" in out and "v.mp4" not in out
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.startswith("s4d: ") and "cannot be read: " in line for line in lines)
    assert {Path(line.split()[1]).name for line in lines} == {"v.mp4", "e.jpg", "no.jpg"}


def test_predict_refuses_a_task_that_was_never_trained(capsys, finished, tmp_path):
    copy = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, "tasks": ["video"]}))
    assert "was not trained on images, so it cannot judge" in fails(capsys, "predict", write_image(tmp_path / "a.png"), "--run", copy)


def test_predict_with_damaged_weights_is_a_sentence(capsys, finished, tmp_path):
    copy = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    (copy / "weights.safetensors").write_bytes(b"half")
    assert "weights.safetensors" in fails(capsys, "predict", write_image(tmp_path / "a.png"), "--run", copy)


def test_audit_prints_problems_and_says_so_by_its_status(capsys, tmp_path):
    write_affectnet(tmp_path / "photos", 1, 1)
    status, out, err = run(capsys, "audit", "affectnet", tmp_path / "photos")
    assert status == 0 and "no problems" in out and "anger" in out
    (tmp_path / "photos/val/fear/000.jpg").write_bytes(b"")
    table = tmp_path / "problems.csv"
    status, out, err = run(capsys, "audit", "affectnet", tmp_path / "photos", "--csv", table)
    assert status == 1 and "val/fear/000.jpg: it is empty" in out and "1 problems" in out
    assert pd.read_csv(table)[["kind", "path"]].values.tolist() == [["empty", "val/fear/000.jpg"]]


def test_export_gives_weights_that_load_as_released(capsys, finished, tmp_path):
    status, out, _ = run(capsys, "export", finished.dir, tmp_path / "released.pth")
    assert status == 0 and "released.pth" in out
    state = torch.load(tmp_path / "released.pth", weights_only=True)["model"]
    assert any("moe_layer" in name for name in state)


def test_runs_lists_the_store(capsys, finished, tmp_path):
    status, out, _ = run(capsys, "runs", "--runs", finished.dir.parent)
    assert status == 0 and finished.dir.name in out and "finished" in out
    assert "holds no runs" in fails(capsys, "runs", "--runs", tmp_path)


def test_an_interrupted_command_says_that_it_goes_on(capsys, monkeypatch, mini):
    def interrupt(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(training, "train", interrupt)
    assert "the same command continues" in fails(capsys, "pretrain", "--profile", "smoke", status=130)


def test_a_full_disk_is_one_sentence(capsys, monkeypatch, mini, tmp_path):
    cfg = tiny_pretrain(mini)
    monkeypatch.setattr(config, "profile", lambda *_, **__: type("P", (), {"pretrain": cfg}))

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.replace", full)
    assert "No space left on device; free space" in fails(capsys, "pretrain", "--runs", tmp_path)
    assert [p.name for p in locate(cfg, tmp_path).dir.iterdir()] == [".lock"]


def test_a_defect_shows_its_traceback(monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["pretrain", "--profile", "smoke"])
    with pytest.raises(config.ConfigError):
        main(["--debug", "faces", "--profile", "tiny"])


@pytest.mark.slow
def test_the_module_is_a_program(tmp_path):
    done = subprocess.run([sys.executable, "-m", "s4d", "evaluate", "none"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("s4d: none is not a run")


def test_under_torchrun_one_process_prints_and_an_error_names_its_process(capsys, monkeypatch, tmp_path):
    class Done:
        dir, provenance = tmp_path / "run", {"seconds": 1.0}
    monkeypatch.setattr(training, "train", lambda *_: Done)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in ("0", "3"):
        monkeypatch.setenv("RANK", rank)
        status, out, err = run(capsys, "pretrain", "--profile", "smoke")
        assert status == 0 and err == "" and (str(tmp_path / "run") in out) == (rank == "0") == bool(out)
    assert main(["pretrain", "--profile", "tiny"]) == 2
    assert capsys.readouterr().err.startswith("s4d, process 3: unknown profile 'tiny'")


def test_requests_of_the_pipeline_that_cannot_be_met_end_with_a_sentence(capsys, tmp_path):
    assert main(["reproduce", "-p", "sampels=4", "--out", str(tmp_path / "out")]) == 2
    assert "unknown notebook parameter 'sampels'" in capsys.readouterr().err
    (tmp_path / "affectnet").mkdir()
    assert main(["reproduce", "--profile", "paper", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path}/affectnet, which is empty" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_label_outside_the_vocabulary_ends_with_a_sentence(capsys, tmp_path):
    folder = tmp_path / "train" / "bored"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"never opened")
    assert main(["audit", "affectnet", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "'bored'" in said and "happiness" in said and said.count("\n") == 1


def test_an_image_of_the_wrong_size_ends_with_a_sentence(capsys, finished, tmp_path):
    from PIL import Image
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    assert main(["predict", str(tmp_path / "tiny.png"), "--run", str(finished.dir)]) == 1
    assert "8 x 8 px" in capsys.readouterr().err


def test_bench_refuses_a_missing_gpu(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device was found: choose --device cpu" in fails(
        capsys, "bench", "--device", "cuda")


def test_help_needs_no_torch(tmp_path):
    code = "import sys; from s4d.__main__ import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
