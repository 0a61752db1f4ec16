"""The pipeline on notebooks of a few lines: what it refuses, keeps, and does not do twice."""
import errno
import json
import os
import sys
import types
from pathlib import Path

import pytest

import s4d.faces
from s4d import config
from s4d import reproduce as pipeline
from s4d.__main__ import main
from s4d.data import DatasetError
from s4d.files import OutputError, write_text
from s4d.reproduce import ReproduceError
from s4d.study import ablations

WRITE = """import pandas as pd
from matplotlib.figure import Figure
from s4d.study.artifacts import Artifacts
made = Artifacts(out, profile, "{notebook}")
fig = Figure()
fig.add_subplot().plot([0, 1], [0, {value}])
made.figure(fig, "{artifact}", pd.DataFrame({{"x": [0, 1], "y": [0, {value}]}}), "A line.")"""


def cell(artifact: str, value: float, notebook: str = "01_faces") -> str:
    return WRITE.format(notebook=notebook, artifact=artifact, value=value)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for everything, and a pipeline that needs no corpus and no training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "prepare", lambda *_: ["corpus and runs"])
    return tmp_path


def reproduce(place: Path, names: list[str], **options) -> int:
    given = {"out": "out", "folder": place / "nb", "notebooks": names, **options}
    return pipeline.reproduce("smoke", **given)


def snapshot(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_a_notebook_that_nobody_knows_is_refused(place, write_notebook):
    write_notebook(place / "nb/01_faces.ipynb")
    with pytest.raises(ReproduceError, match="no notebook '07_more' .* there are 01_faces"):
        reproduce(place, ["07_more"])
    for wrong in ("sampels", "profile"):
        with pytest.raises(ReproduceError, match=f"no parameter '{wrong}' for -p: .* samples;"):
            write_notebook(place / "nb/01_faces.ipynb", "assert samples == 7", more="\nsamples = 3")
            reproduce(place, ["01_faces"], parameters={wrong: "7"})
    assert not (place / "out").exists() and not (place / "build").exists()
    assert reproduce(place, ["01_faces"], parameters={"samples": "7"}) == 0


def test_licensed_data_that_are_empty(place, write_notebook):
    write_notebook(place / "nb/01_faces.ipynb")
    (place / "data/affectnet").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no samples"):
        pipeline.reproduce("paper", out="out", folder=place / "nb", notebooks=["01_faces"],
                           fresh=True)
    assert not (place / "out").exists()


def test_a_second_run_executes_only_what_changed(place, write_notebook, capsys):
    write_notebook(place / "nb/01_faces.ipynb", cell("line", 1))
    write_notebook(place / "nb/06_report.ipynb",
                   "import sys, os\nassert os.environ['OMP_NUM_THREADS'] == '1'\nsys.executable")
    names = ["01_faces", "06_report"]
    assert reproduce(place, names) == 1
    executed = json.loads((place / "build/smoke/06_report.ipynb").read_text())["cells"]
    assert executed[-1]["outputs"][0]["data"]["text/plain"] == [repr(sys.executable)]
    first = snapshot(place / "out")
    assert set(first) == {"line.pdf", "line.png", "manifest.json", "source_data/line.csv"}
    capsys.readouterr()
    (place / "out/line.pdf").unlink()            # published again, without execution
    reproduce(place, names)
    said = capsys.readouterr().out
    assert said.count("unchanged, skipped") == 2 and snapshot(place / "out") == first
    write_notebook(place / "nb/01_faces.ipynb", cell("renamed", 2))
    reproduce(place, names)                      # the report reads the numbers of earlier notebooks
    assert "skipped" not in capsys.readouterr().out
    assert set(snapshot(place / "out")) == {f.replace("line", "renamed") for f in first}


def test_a_failing_notebook_names_the_cell_and_leaves_earlier_artifacts(place, write_notebook,
                                                                         capsys):
    write_notebook(place / "nb/01_faces.ipynb", cell("line", 1))
    reproduce(place, ["01_faces"])
    before = snapshot(place / "out")
    write_notebook(place / "nb/01_faces.ipynb", cell("line", 5))
    write_notebook(place / "nb/02_pretraining.ipynb", "good = 1", "\nshare = good / 0  # here")
    write_notebook(place / "nb/06_report.ipynb", "open('never', 'w')")
    said = (r"02_pretraining failed in cell 4 of 4 \(`share = good / 0  # here`\) with "
            "ZeroDivisionError: division by zero")
    with pytest.raises(ReproduceError, match=said) as caught:
        reproduce(place, ["01_faces", "02_pretraining", "06_report"])
    assert "Traceback" in caught.value.details and "\x1b" not in caught.value.details
    assert snapshot(place / "out") == before and not (place / "nb/never").exists()
    write_notebook(place / "nb/02_pretraining.ipynb")      # the other one need not run again
    reproduce(place, ["01_faces", "02_pretraining"])
    assert "01_faces: unchanged, skipped" in capsys.readouterr().out


def test_command_line_status(monkeypatch, capsys):
    def fail(error):
        def raises(*_, **__):
            raise error
        monkeypatch.setattr(pipeline, "reproduce", raises)
        return main(["reproduce"]), capsys.readouterr().err
    failed = ReproduceError("notebook x failed", "Traceback ...")
    assert fail(failed) == (1, "Traceback ...\n\ns4d: notebook x failed\n")
    assert fail(OutputError("cannot write y")) == (2, "s4d: cannot write y\n")


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Corpus and training that write only what the pipeline looks at; the list of what was done."""
    monkeypatch.chdir(tmp_path)
    done = []

    def ensure(cfg, data, workers, progress):
        if not (Path(data) / cfg.folder).exists():
            write_text(Path(data) / cfg.folder / "corpus.json", "{}")
            done.append("corpus")

    def run_all(jobs, runs, workers):
        assert workers == 2
        folders = [Path(runs) / f"{cfg.stage}-{config.digest(cfg)}-00000000" for cfg in jobs]
        for folder in folders:
            if not folder.exists():
                write_text(folder / "weights.safetensors", "w")
                write_text(folder / "provenance.json", "{}")
                done.append(folder.name)
        return [types.SimpleNamespace(dir=folder) for folder in folders]

    corpus = types.SimpleNamespace(ensure=ensure)
    monkeypatch.setattr(s4d.faces, "corpus", corpus, raising=False)
    monkeypatch.setitem(sys.modules, "s4d.faces.corpus", corpus)
    monkeypatch.setitem(sys.modules, "s4d.training", types.SimpleNamespace(run_all=run_all))
    return done


def test_corpus_and_runs_are_found_again_and_forgotten(stages, tmp_path, write_notebook, capsys):
    write_notebook(tmp_path / "nb" / "01_faces.ipynb")
    reproduce(tmp_path, ["01_faces"])
    count = len(pipeline.configurations(config.profile("smoke")))
    said = capsys.readouterr().out
    assert len(stages) == 1 + count and "drawing the faces" in said
    assert f"missing of {count} runs" in said and "done: 0 figures" in said
    (tmp_path / "runs" / "finetune-other-0").mkdir()
    (tmp_path / "data/own").mkdir()
    reproduce(tmp_path, ["01_faces"])
    said = capsys.readouterr().out
    assert len(stages) == 1 + count and "drawing" not in said
    assert "01_faces: unchanged, skipped" in said
    next((tmp_path / "runs").glob("*/weights.safetensors")).write_text("other weights")
    reproduce(tmp_path, ["01_faces"])                    # the notebooks are told
    assert "skipped" not in capsys.readouterr().out
    reproduce(tmp_path, ["01_faces"], fresh=True)
    assert len(stages) == 2 * (1 + count)
    assert (tmp_path / "runs/finetune-other-0").exists() and (tmp_path / "data/own").exists()


def test_disk_that_fills_while_publishing(place, write_notebook, monkeypatch):
    write_notebook(place / "nb/01_faces.ipynb", cell("line", 1))
    reproduce(place, ["01_faces"])
    before, copies = snapshot(place / "out"), []
    write_notebook(place / "nb" / "01_faces.ipynb", cell("line", 3))

    def copyfile(source, target):
        Path(target).write_bytes(b"half")
        copies.append(target)
        if len(copies) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.shutil, "copyfile", copyfile)
        with pytest.raises(OutputError, match="no space left"):
            reproduce(place, ["01_faces"])
    assert snapshot(place / "out") == before
    reproduce(place, ["01_faces"])               # with space again: published without execution
    assert snapshot(place / "out") != before


def test_an_output_folder_that_refuses_files_stops_before_anything_is_done(
        stages, tmp_path, write_notebook, monkeypatch):
    write_notebook(tmp_path / "nb" / "01_faces.ipynb")
    reproduce(tmp_path, ["01_faces"])
    before, replace = snapshot(tmp_path), os.replace

    def refuse(source, target):
        if Path(target).name == ".tmp-probe":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))
        replace(source, target)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="cannot write out/.tmp-probe: read-only file system"):
        reproduce(tmp_path, ["01_faces"], fresh=True)
    assert snapshot(tmp_path) == before


def test_a_profile_names_its_notebooks_and_fresh_forgets_all_its_corpora(stages, tmp_path,
                                                                         write_notebook):
    for name in ("01_faces", "03_finetuning"):
        write_notebook(tmp_path / "nb" / f"{name}.ipynb", cell(name, 1, name))
    night = config.profile("night")
    drawn = [tmp_path / "data" / faces.folder for faces in ablations.corpora(night)]
    for folder in drawn:
        (folder / "old").mkdir(parents=True)
    assert pipeline.reproduce("night", out="night", folder=tmp_path / "nb", fresh=True) == 1
    assert len(drawn) == 4 and not any((folder / "old").exists() for folder in drawn)
    assert (tmp_path / "night/03_finetuning.pdf").is_file()
