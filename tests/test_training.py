"""Training at its smallest: what a run leaves behind, how it is continued, and how it fails."""
from __future__ import annotations

import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_finetune, tiny_pretrain, write_image, write_video
from faults import same
from safetensors.torch import load_file

from s4d import config as configs
from s4d.config import ConfigError, Source, update
from s4d.data import DatasetError, MediaError, index
from s4d.data.dataset import Samples, Key
from s4d.data.transforms import train_transform
from s4d.models import CheckpointError, create
from s4d.training import RunError, finetune, locate, predict, pretrain, run_all, train, war_uar
from s4d.training.jobs import Overall
from s4d.training.loop import Progress, autocast, cosine, optimizer_for, set_lr
from s4d.training.runs import Run
from s4d.training.watch import MediaGuard

stage_pretrain, stage_finetune = (sys.modules[f"s4d.training.{stage}"] for stage in ("pretrain", "finetune"))
CONFIGS = {"pretrain": tiny_pretrain, "finetune": tiny_finetune}
MODULES = {"pretrain": stage_pretrain, "finetune": stage_finetune}


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# --- what a run is

def test_a_pretraining_run(mini, tmp_path, monkeypatch, capsys):
    cfg = tiny_pretrain(mini)
    run = pretrain(cfg, tmp_path)
    assert files(run.dir) == {"config.json", "metrics.jsonl", "weights.safetensors", "provenance.json"} and run.done
    assert run.config == cfg and run.dir.name.startswith("pretrain-")
    rows = run.metrics()
    assert rows.step.tolist() == list(range(6)) and rows.modality.value_counts().to_dict() == {"image": 3, "video": 3}
    peak = cfg.lr * cfg.image_batch_size / 512
    assert rows.loss.between(0.5, 3).all() and rows.lr.tolist() == pytest.approx([cosine(s, 6, round(6 * cfg.warmup_ratio), peak) for s in range(6)])
    assert run.provenance["steps"] == 6 and run.provenance["unreadable"] == {} and "torch" in run.provenance["versions"]
    assert not run.load().training
    monkeypatch.setattr(stage_pretrain, "build", lambda cfg: pytest.fail("a finished run is trained again"))
    assert train(cfg, tmp_path).dir == run.dir == locate(cfg, tmp_path).dir
    assert capsys.readouterr() == ("", "")                # quiet where there is no terminal


def test_a_finetuning_run(finished, mini, monkeypatch):
    assert files(finished.dir) == {"config.json", "metrics.jsonl", "weights.safetensors", "predictions.csv", "provenance.json"}
    rows = finished.metrics()
    steps = rows[rows.modality != "val"]
    assert set(steps.modality) == {"image", "video"} and steps.loss.notna().all() and len(rows[rows.modality == "val"]) == 1
    table = finished.predictions()
    assert table.groupby(["task", "split"]).size().to_dict() == {("image", "test"): 7, ("image", "val"): 7, ("video", "test"): 7,
                                                                 ("video", "val"): 7}
    probabilities = table.filter(like="prob_")
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert (probabilities.columns[probabilities.to_numpy().argmax(1)] == "prob_" + table.predicted).all()
    wars = [war_uar(rows.label, rows.predicted)[0] for _, rows in table[table.split == "val"].groupby("task")]
    assert finished.provenance["best_validation"] == pytest.approx(sum(wars) / 2, abs=1e-5) and finished.provenance["missing_in_test"] == {}
    monkeypatch.setattr(stage_finetune, "start_model", lambda *_: pytest.fail("a finished run is trained again"))
    assert finetune(finished.config, finished.dir.parent).dir == finished.dir


def test_two_runs_of_one_configuration_are_equal_and_of_two_seeds_are_not(mini, tmp_path, finished):
    same(finetune(tiny_finetune(mini), tmp_path), finished)
    other = finetune(tiny_finetune(mini, seed=1), tmp_path)
    assert not torch.equal(load_file(other.dir / "weights.safetensors")["head.image.weight"],
                           load_file(finished.dir / "weights.safetensors")["head.image.weight"])


def test_each_step_has_a_mask_of_its_own_with_its_tasks_share(mini, tmp_path, monkeypatch):
    masks, random_mask = {"image": [], "video": []}, stage_pretrain.random_mask

    def drawn(n, tokens, *args):
        mask = random_mask(n, tokens, *args)
        if n > 1:                                         # a batch; the loop's blank sample is one
            masks["image" if tokens == 4 else "video"].append(mask)
        return mask
    monkeypatch.setattr(stage_pretrain, "random_mask", drawn)
    pretrain(tiny_pretrain(mini, image_mask_ratio=0.5, video_mask_ratio=0.75), tmp_path)
    for task, share in (("image", 0.5), ("video", 0.75)):
        assert len(masks[task]) == 3 and all((m.float().mean(1) == share).all() for m in masks[task])
        assert len({m.numpy().tobytes() for m in masks[task]}) == 3


def test_finetuning_starts_from_the_pretrained_encoder(mini, tmp_path):
    pre = pretrain(tiny_pretrain(mini), tmp_path)
    by_config = tiny_finetune(mini, init=tiny_pretrain(mini))
    by_file = tiny_finetune(mini, init=str(pre.dir / "weights.safetensors"))
    weight = "blocks.0.mlp.fc1.weight"
    for cfg in (by_config, by_file):
        model = stage_finetune.start_model(cfg, tmp_path)
        assert torch.equal(model.state_dict()[weight], load_file(pre.dir / "weights.safetensors")[f"encoder.{weight}"])
    run = finetune(update(by_config, tasks=("video",), num_experts=0), tmp_path)
    assert set(run.metrics().modality) == {"video", "val"} and set(run.predictions().task) == {"image", "video"}


def test_a_finetuning_is_the_same_whether_its_pretraining_was_found_or_made(mini, tmp_path):
    cfg = tiny_finetune(mini, init=tiny_pretrain(mini, epochs=0.34), epochs=0.5)
    made = finetune(cfg, tmp_path / "made")
    pretrain(cfg.init, tmp_path / "found")
    same(made, finetune(cfg, tmp_path / "found"))


def test_the_epoch_best_on_validation_is_kept(mini, tmp_path, monkeypatch):
    scores, weights = iter((0.2, 0.9, 0.5)), []

    def validate(cfg, model, *_):
        weights.append(model.head["image"].weight.detach().clone())
        return dict.fromkeys(("image_war", "image_uar"), next(scores))
    monkeypatch.setattr(stage_finetune, "validate", validate)
    run = finetune(tiny_finetune(mini, epochs=3, tasks=("image",)), tmp_path)
    kept = run.load().head["image"].weight
    assert [torch.equal(kept, w) for w in weights] == [False, True, False] and run.provenance["best_validation"] == 0.9


def test_a_runs_folder_follows_everything_it_was_made_from(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    cfg = tiny_finetune(root, init=tiny_pretrain(root))
    assert locate(cfg).dir == locate(tiny_finetune(mini, init=tiny_pretrain(mini))).dir          # not where the data lie
    fine, pre = locate(cfg).dir, locate(cfg.init).dir
    write_video(root / "voxceleb2/dev/mp4/id00009/v/1.mp4", frames=4)
    assert locate(cfg.init).dir != pre and locate(cfg).dir != fine
    plain = locate(tiny_finetune(root)).dir
    write_image(root / "affectnet/val/fear/009.jpg", 5)
    assert locate(tiny_finetune(root)).dir != plain
    found = []
    for content in (b"one", b"two"):
        (tmp_path / "c.pth").write_bytes(content)
        found.append(locate(tiny_finetune(root, init=str(tmp_path / "c.pth"))).dir)
    assert found[0] != found[1]
    assert len(found[0].name.split("-")[-1]) == 3 * 8              # photos, clips and checkpoint, eight digits each
    with pytest.raises(CheckpointError, match="cannot read checkpoint none.pth: No such file"):
        locate(tiny_finetune(root, init="none.pth"))


def test_missing_sources_and_splits_are_sentences(mini, tmp_path):
    with pytest.raises(ConfigError, match="task 'image' is trained but has no source"):
        finetune(update(tiny_finetune(mini), image=None), tmp_path)
    with pytest.raises(ConfigError, match="both sources are None"):
        pretrain(update(tiny_pretrain(mini), image=None, video=None), tmp_path)
    photos, clips, speaking = (Source(n, str(mini / n), fold) for n, fold in (("affectnet", None), ("dfew", 1), ("voxceleb2", None)))
    for changes, said in ((dict(image=clips), "dfew holds clips and was named as the source of photos: choose one of affectnet, photos, rafdb$"),
                          (dict(video=photos), "affectnet holds photos and was named as the source of clips: choose one of caer, clips, cremad, dfew"),
                          (dict(video=speaking), "voxceleb2 in .* has no labels: fine-tuning needs them, pre-training does not")):
        with pytest.raises(DatasetError, match=said):
            finetune(update(tiny_finetune(mini), **changes), tmp_path)
    with pytest.raises(DatasetError, match="affectnet holds photos and was named"):
        pretrain(update(tiny_pretrain(mini), video=photos), tmp_path)
    write_image(tmp_path / "a/val/fear/0.jpg")
    write_image(tmp_path / "a/test/fear/0.jpg")
    photos = Source("affectnet", str(tmp_path / "a"))
    with pytest.raises(DatasetError, match="has no training samples: pre-training"):
        pretrain(update(tiny_pretrain(mini), image=photos), tmp_path)
    with pytest.raises(DatasetError, match="has no training samples: fine-tuning"):
        finetune(update(tiny_finetune(mini), image=photos), tmp_path)


# --- bad media

def noise(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2: len(content) * 6 // 10] = np.random.default_rng(0).bytes(len(content) * 6 // 10 - len(content) // 2)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("cache", [False, True])
def test_a_broken_test_clip_is_named_and_counts_as_an_error(mini, tmp_path, cache):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    noise(root / "dfew/Clip/original/00015.mp4")          # the first test clip, "happiness"
    run = finetune(tiny_finetune(root, cache=cache, test_segments=2), tmp_path)
    missing = run.provenance["missing_in_test"]
    assert list(missing) == ["Clip/original/00015.mp4"] and "damaged" in missing["Clip/original/00015.mp4"]
    rows = run.predictions().query("task == 'video' and split == 'test'")
    broken = rows[rows.path == "Clip/original/00015.mp4"]
    assert len(rows) == 7 and broken.predicted.isna().all() and broken.filter(like="prob_").isna().all(axis=None)
    war, uar = war_uar(rows.label, rows.predicted)
    right = (rows.label == rows.predicted).sum()
    assert war == pytest.approx(right / 7) and uar == pytest.approx(right / 7) and right < 7


def test_war_and_uar():
    assert war_uar(["a", "a", "a", "b"], ["a", "a", "b", "b"]) == (0.75, pytest.approx((2 / 3 + 1) / 2))
    assert war_uar(["a", "b"], [None, "b"]) == (0.5, 0.5) and war_uar(["a", "b"], [float("nan")] * 2) == (0, 0)
    assert war_uar(["a", "a"], ["a", "c"]) == (0.5, 0.5)  # a class without samples has no recall


def test_too_many_broken_training_samples_stop_the_run(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    (root / "affectnet/train/fear/000.jpg").write_bytes(b"")
    cfg = tiny_pretrain(root)
    with pytest.raises(RunError, match=r"1 of 18 training samples are unreadable, more than max_bad=0.01; the first is train/fear/000.jpg "
                                       r"\(the file is empty.*audit"):
        pretrain(update(cfg, image_batch_size=14), tmp_path)
    run = pretrain(update(cfg, image_batch_size=14, max_unreadable=0.1), tmp_path)
    assert list(run.provenance["unreadable"]) == ["train/fear/000.jpg"]


def test_a_batch_without_a_readable_sample_is_passed_over(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    for i in range(1, 15):
        (root / f"dfew/Clip/original/{i:05d}.mp4").write_bytes(b"")
    run = finetune(tiny_finetune(root, max_unreadable=1.0), tmp_path)
    assert set(run.metrics().modality) == {"image", "val"} and len(run.provenance["unreadable"]) >= 4


def test_the_guard_counts_each_sample_once_and_remembers():
    guard = MediaGuard(10, 0.2)
    for _ in range(5):
        guard.see([("a", "empty")])
    guard = MediaGuard(10, 0.2, guard.bad)
    guard.see([("b", "empty")])
    with pytest.raises(RunError, match="3 of 10"):
        guard.see([("c", "empty")])


# --- failures

def test_damaged_runs_are_sentences(finished, tmp_path):
    run = Run(Path(shutil.copytree(finished.dir, tmp_path / "run")))
    weights = run.dir / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RunError, match="cannot read .*weights.safetensors .*damaged"):
        run.load()
    weights.unlink()
    with pytest.raises(RunError, match="cannot read .*weights.safetensors .*missing"):
        run.load()
    (run.dir / "config.json").write_text("{")
    with pytest.raises(RunError, match="cannot read .*config.json"):
        Run(run.dir).config
    for name, read in (("predictions.csv", Run.predictions), ("metrics.jsonl", Run.metrics)):
        (run.dir / name).unlink()
        with pytest.raises(RunError, match=f"cannot read .*{name} .No such file or directory.: it is missing or damaged"):
            read(run)
    (run.dir / "provenance.json").write_text("")
    with pytest.raises(RunError, match="cannot read .*provenance.json"):
        run.provenance


# --- pieces of the loop

def test_layer_decay_reaches_every_parameter():
    model = create("s4d_nano_patch16_64", num_experts=2)
    optimizer = optimizer_for(model, (0.9, 0.99), 0.05, layer_decay=0.5)
    set_lr(optimizer, 1.0)
    names = {id(p): n for n, p in model.named_parameters()}
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert set(found) == set(names.values())
    for name, (lr, decay) in found.items():
        last = len(model.blocks) + 1
        layer = 0 if name.startswith("patch_embed") else int(name.split(".")[1]) + 1 if name.startswith("blocks") else last
        assert lr == 0.5 ** (last - layer), name
        assert decay == (0 if name.rsplit(".", 1)[1] in ("bias", "q_bias", "v_bias", "b1", "b2") or "norm" in name else 0.05), name
    set_lr(optimizer, 0.1)
    assert max(g["lr"] for g in optimizer.param_groups) == 0.1
    flat = optimizer_for(create("s4d_mae_nano_patch16_64"), (0.9, 0.95), 0.05)
    set_lr(flat, 1.0)
    assert {g["lr"] for g in flat.param_groups} == {1.0} and {g["weight_decay"] for g in flat.param_groups} == {0.0, 0.05}


def test_the_learning_rate_warms_up_and_falls_as_half_a_cosine():
    rates = [cosine(s, 110, 10, 1.0, 0.1) for s in range(111)]
    assert rates[0] == pytest.approx(0.1, abs=1e-5) and rates[9] == pytest.approx(1.0) and rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)
    assert rates[35] == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)))
    assert np.allclose(np.diff(rates[:10]), np.diff(rates[:10])[0]) and (np.diff(rates[10:]) < 0).all()
    assert cosine(0, 5, 0, 2.0) == 2.0


@pytest.mark.parametrize("mixup, cutmix", [(0.8, 0.0), (0.0, 1.0)])
def test_mixing_treats_all_frames_of_a_clip_alike(mini, mixup, cutmix):
    torch.manual_seed(0)
    mix = stage_finetune.mixer(tiny_finetune(mini, mixup=mixup, cutmix=cutmix), 7)
    for shape in ((4, 3, 8, 8), (4, 3, 6, 8, 8)):
        x = torch.arange(4.0).view(4, *[1] * (len(shape) - 1)).expand(shape).clone()
        mixed, y = mix(x, torch.arange(4))
        assert type(mixed) is torch.Tensor and mixed.shape == shape and y.shape == (4, 7) and torch.allclose(y.sum(1), torch.ones(4))
        assert not torch.equal(mixed, x)
        if len(shape) == 5:
            assert torch.equal(mixed[:, :, :1].expand(shape), mixed)
        share = mixed.flatten(1).mean(1)                  # of the mates' numbers, as much as of their labels
        assert torch.allclose(share, y @ torch.arange(7.0), atol=1e-4)
    assert stage_finetune.mixer(tiny_finetune(mini, mixup=0.0, cutmix=0.0), 7) is None


def test_predictions_are_the_mean_over_views(mini):
    table = stage_finetune.tables(tiny_finetune(mini))["video"].query("split == 'test'")
    model = create("s4d_nano_patch16_64", img_size=32, num_frames=4).eval()
    torch.nn.init.normal_(model.head["video"].weight)
    views = []
    for segments in (1, 2):
        data = Samples(table, mini / "dfew", "video", 32, 4, 1, test_segments=segments)
        views.append(predict(model, data, 7, batch=3)[0].filter(like="prob_").to_numpy())
    from s4d.data import read_clip
    from s4d.data.transforms import normalise
    for row, path in enumerate(table.path[:2]):
        clip = normalise(read_clip(mini / "dfew" / path, size=32).transpose(0, 1)[None])
        with torch.no_grad():
            parts = [model(clip[:, :, s:s + 4]).softmax(-1)[0].numpy() for s in (0, 2, 1)]
        assert np.allclose(views[1][row], (parts[0] + parts[1]) / 2, atol=1e-5) and np.allclose(views[0][row], parts[2], atol=1e-5)


def test_a_clip_of_which_one_view_is_broken_has_no_prediction(mini):
    class HalfBroken(Samples):
        def load(self, key, generator):
            if key.row == 1 and key.view == 1:
                raise MediaError(self.table["path"][1], "damaged")
            return super().load(key, generator)
    table = stage_finetune.tables(tiny_finetune(mini))["video"].query("split == 'test'")
    data = HalfBroken(table, mini / "dfew", "video", 32, 4, 1, test_segments=2)
    rows, bad = predict(create("s4d_nano_patch16_64", img_size=32, num_frames=4), data, 7)
    assert bad == {rows.path[1]: "damaged"} and rows.predicted.isna().tolist() == [i == 1 for i in range(7)]


# --- several runs

def test_one_bar_counts_the_steps_of_all_runs():
    overall, channel = Overall("training", 4), queue.Queue()
    overall.read(channel)
    for message in (("begin", 10), ("steps", 1), ("begin", 30), ("steps", 1)):
        channel.put(message)
    overall.read(channel)
    assert overall.steps == 2 and overall.bar.total == 80             # four runs of twenty steps on average
    overall.finish()
    channel.put(("steps", 1))
    overall.read(channel)
    assert overall.steps == 3 and overall.finished == 1


def test_a_worker_tells_its_steps(monkeypatch):
    monkeypatch.setattr(Progress, "queue", queue.Queue())
    progress = Progress("training", 5, 3)
    progress.step("image", 0.5)
    progress.step("video", None)
    assert [Progress.queue.get_nowait() for _ in range(3)] == [("begin", 2), ("steps", 1), ("steps", 1)] and Progress.queue.empty()


def test_run_all_in_one_process(mini, tmp_path):
    pre = tiny_pretrain(mini, epochs=0.34)
    jobs = [tiny_finetune(mini, init=pre, tasks=("image",), num_experts=0), pre]
    runs = run_all(jobs, tmp_path, workers=1)
    assert [r.config for r in runs] == jobs and all(r.done for r in runs) and len(list(tmp_path.iterdir())) == 2


def test_run_all_starts_no_process_for_what_is_done(finished, monkeypatch):
    monkeypatch.setattr("s4d.training.jobs._side_by_side", lambda *_: pytest.fail("processes are started for nothing"))
    assert [r.dir for r in run_all([finished.config], finished.dir.parent, workers=2)] == [finished.dir]


@pytest.mark.slow
def test_runs_side_by_side_equal_runs_one_after_another(mini, tmp_path, finished):
    pre = tiny_pretrain(mini, epochs=0.34)
    jobs = [tiny_finetune(mini, init=pre), tiny_finetune(mini)]
    runs = run_all(jobs, tmp_path / "two", workers=2)
    same(runs[1], finished)
    same(runs[0], run_all(jobs[:1], tmp_path / "one", workers=1)[0])


@pytest.mark.slow
def test_a_failing_run_among_several_raises_its_own_error(mini, tmp_path):
    root = Path(shutil.copytree(mini, tmp_path / "data"))
    (root / "affectnet/train/fear/000.jpg").write_bytes(b"")
    with pytest.raises(RunError, match="unreadable, more than max_bad"):
        run_all([tiny_pretrain(root), tiny_pretrain(root, seed=1)], tmp_path / "runs", workers=2)


def be_killed(cfg, runs):
    """A run for which there is no memory, as its process sees it."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_a_sentence(mini, tmp_path, monkeypatch):
    monkeypatch.setattr("s4d.training.jobs.train", be_killed)
    jobs = [tiny_pretrain(mini), tiny_pretrain(mini, seed=1), tiny_pretrain(mini, seed=2)]
    one, two = (locate(cfg, tmp_path).dir.name for cfg in jobs[:2])
    with pytest.raises(RunError, match=f"killed while it trained {one} or {two}, most often for want of memory: .*--jobs 1.*smaller"):
        run_all(jobs, tmp_path, workers=2)


ORPHANS = """import sys, time
from s4d.config import Pretrain
from s4d.training import jobs

def linger(cfg, runs):
    print("begun", flush=True)
    time.sleep(30)

if __name__ == "__main__":
    jobs.train = linger
    jobs._side_by_side([Pretrain(None, None, seed=0), Pretrain(None, None, seed=1)], set(), "runs", 2, "training")
"""


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Killed, not stopped, so that it cannot tell them. The pipe ends when the last process that could write to it is gone."""
    (tmp_path / "program.py").write_text(ORPHANS)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert [parent.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        parent.kill()
        assert parent.communicate(timeout=10)[0] == ""


def test_metrics_are_one_object_a_line(finished):
    rows = [json.loads(line) for line in (finished.dir / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "epoch", "modality"} <= set(rows[0]) and isinstance(finished.metrics(), pd.DataFrame)
    assert {"image_war", "image_uar", "video_war", "video_uar"} <= set(rows[-1])


def test_bf16_where_the_processor_has_units_and_never_in_the_nano_profiles(monkeypatch):
    cpu = torch.device("cpu")
    for units in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda units=units: units, raising=False)
        for enabled in (True, False):
            with autocast(cpu, enabled):
                assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == (torch.bfloat16 if units and enabled else torch.float32)
    assert not any(configs.profile(n).finetune.amp or configs.profile(n).pretrain.amp for n in ("smoke", "sandbox"))
    assert configs.profile("gpu").finetune.amp and configs.profile("paper").pretrain.amp


def test_an_augmented_draw_leaves_the_global_generator_alone(mini):
    table = index("affectnet", mini / "affectnet")
    clips = Samples(table, mini / "affectnet", "image", 64, 1, 1, transform=train_transform(64, (1.0, 1.0), "", 0.0))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = [clips[Key("image", 0, seed)]["clip"] for seed in range(8)]
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)
    assert all(torch.equal(a, clips[Key("image", 0, seed)]["clip"]) for seed, a in enumerate(first))
    assert len({a.numpy().tobytes() for a in first}) == 2          # as it is, and mirrored
