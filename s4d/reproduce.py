"""From nothing to every figure: corpora, training, then the notebooks."""
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd
import yaml
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError, execute_notebook, inspect_notebook
from tqdm import tqdm

from . import config as configs
from .config import Profile
from .files import ROOT, code_version, sha256, write, write_all, write_text
from .study import ablations
from .study.artifacts import manifest_text, read_manifest

NOTEBOOKS = ("01_faces", "02_pretraining", "03_finetuning", "04_experts", "05_correlation",
             "06_report")
READERS = ("03_finetuning", "06_report")      # they read what earlier ones wrote, and wait
logging.getLogger("papermill").setLevel(logging.ERROR)      # it warns of what we refuse


class ReproduceError(RuntimeError):
    """A wrong request, or a notebook that failed, whose traceback `details` then holds."""

    def __init__(self, message: str, details: str | None = None):
        super().__init__(message)
        self.details = details


@dataclass
class Job:
    """One call of `reproduce`: what it runs, where things lie, and the clock."""

    profile: Profile
    folder: Path                      # of the notebooks
    names: list[str]                  # of the notebooks to run
    given: dict[str, dict]            # further parameters of each
    out: Path
    data: Path
    build: Path                       # build/<profile>: executed notebooks, and what was done
    staging: Path                     # a folder of artifacts, published when all are there
    n_jobs: int                       # runs, then notebooks, side by side
    started: float = field(default_factory=time.time)
    inputs: list = field(default_factory=list)      # names data and runs, once they exist
    spans: list = field(default_factory=list)       # kind, name, first and last second of what ran

    def say(self, text: str) -> None:
        print(f"[{tqdm.format_interval(time.time() - self.started)}] {text}", flush=True)

    @contextmanager
    def clocked(self, kind: str, name: str) -> Iterator[None]:
        begin = time.time()
        yield
        self.spans.append((kind, name, begin - self.started, time.time() - self.started))


def configurations(profile: Profile) -> list:
    """Return all that the profile trains, each once: pre-training, comparison, ablations."""
    grid = [cfg for *_, cfg in profile.methods_grid()]
    more = [trial.config for trial in ablations.trials(profile)]
    started = [c.init for c in more if isinstance(c.init, configs.Pretrain)]
    return list(dict.fromkeys((profile.pretrain, *grid, *started, *more)))


def prepare(job: Job) -> list:
    """Draw the corpora and train the runs; return what names both."""
    from .faces import corpus
    from .training import run_all
    drawn = [job.data / faces.folder / "corpus.json" for faces in ablations.corpora(job.profile)]
    if not all(file.is_file() for file in drawn):
        job.say("corpus: drawing the faces")
    with job.clocked("corpora", "all cores"):
        for faces in ablations.corpora(job.profile):
            corpus.ensure(faces, job.data, min(8, os.cpu_count() or 1),
                          progress=sys.stderr.isatty())
    every = configurations(job.profile)
    job.say(f"training: what is missing of {len(every)} runs")
    begin, names = time.time(), {cfg: name for name, *_, cfg in job.profile.methods_grid()}
    runs = run_all(every, runs=job.profile.runs, workers=job.n_jobs)
    for cfg, run in zip(every, runs, strict=True):
        file = run.dir / "provenance.json"
        end, seconds = file.stat().st_mtime, json.loads(file.read_text("utf-8")).get("seconds", 0)
        if end > begin:                        # of this call
            first, name = max(begin, end - seconds), names.get(cfg, cfg.stage)
            job.spans.append((cfg.stage, name, first - job.started, end - job.started))
    stats = [(run.dir.name, (run.dir / "weights.safetensors").stat()) for run in runs]
    return [*map(sha256, drawn), *((name, s.st_size, s.st_mtime_ns) for name, s in stats)]


def draw_timeline(job: Job) -> None:
    """Draw what ran when, a row a process, into `build/<profile>/timeline.png`."""
    from .study.figures.style import figure
    table = pd.DataFrame(job.spans, columns=["kind", "name", "begin", "end"]).sort_values("begin")
    fig, ax = figure(9, 2.2)
    ends: list[float] = []                     # of the last bar in each row
    for number, kind in enumerate(table["kind"].unique()):
        ax.bar(0, 0, color=f"C{number}", label=kind)
        for _, name, begin, end in table[table["kind"] == kind].itertuples(index=False):
            row = next((i for i, last in enumerate(ends) if last <= begin + 0.5), len(ends))
            ends[row:row + 1] = [end]
            ax.barh(row, (end - begin) / 60, left=begin / 60, color=f"C{number}", edgecolor="w")
            if end - begin > 15:
                ax.text((begin + end) / 120, row, name, rotation=90, ha="center", va="center",
                        color="w", size=6)
    ax.set(xlim=(0, None), xlabel="minutes since the call", ylabel="process",
           yticks=range(len(ends)))
    fig.legend(loc="outside upper center", ncols=4)
    write(job.build / "timeline.png", lambda p: fig.savefig(p, format="png"))


class Kernel(AsyncKernelManager):
    """This interpreter, whatever kernels Jupyter knows; no settings of the user are read."""

    @property
    def kernel_spec(self) -> KernelSpec:
        home = ROOT / "build/ipython"
        home.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
                "--log-level=CRITICAL"]      # else a kernel that was ended may log that as an error
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": paths,
               "IPYTHONDIR": str(home), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        return KernelSpec(argv=argv, display_name="S4D", language="python", env=env)


def execute(notebook: Path, build: Path, parameters: dict) -> None:
    """Run one notebook in a fresh kernel; its copy lies in `build`, after a failure too."""
    copy, name = build / notebook.name, notebook.stem
    bar = {"desc": name, "leave": False} if sys.stderr.isatty() else False
    try:
        build.mkdir(parents=True, exist_ok=True)
        execute_notebook(notebook, copy, parameters=parameters, kernel_name="python3",
                         language="python", progress_bar=bar, kernel_manager_class=Kernel,
                         resources={"metadata": {"path": str(notebook.parent)}})
    except PapermillExecutionError as error:
        sources = cells_of(notebook)        # counted without the one that papermill adds
        number, first = sources.index(error.source) + 1, error.source.strip().splitlines()[0]
        raise ReproduceError(
            f"notebook {name} failed in cell {number} of {len(sources)} (`{first}`) with "
            f"{error.ename}: {' '.join(error.evalue.split())}; the executed copy is {copy}",
            re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))) from error
    except DeadKernelError as error:
        raise ReproduceError(f"the kernel of notebook {name} died, most often for lack of memory: "
                             "close other programs or call with --n-jobs 1", "") from error


def cells_of(notebook: Path) -> list[str]:
    return ["".join(c["source"]) for c in json.loads(notebook.read_text("utf-8"))["cells"]]


def inputs_of(job: Job, name: str) -> str:
    """Digest all that a notebook depends on: cells, code, settings, data, runs, earlier numbers."""
    numbers = {file: digest for earlier in NOTEBOOKS if name in READERS and earlier < name
               for file, digest in staged(job, earlier).items() if file.endswith(".csv")}
    packages = sorted(f"{d.name} {d.version}" for d in distributions())
    parts = [cells_of(job.folder / f"{name}.ipynb"), code_version(), packages,
             configs.digest(job.profile), job.inputs, job.given[name], numbers]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def staged(job: Job, name: str) -> dict[str, str]:
    """Return file -> digest of a notebook's staged artifacts; a missing file has an empty one."""
    entries = [e for e in read_manifest(job.staging).values() if e["notebook"] == name]
    paths = {file: job.staging / file for entry in entries for file in entry["files"]}
    return {file: sha256(path) if path.is_file() else "" for file, path in paths.items()}


def run_notebooks(job: Job, names: list[str]) -> None:
    """Execute side by side those that need it into the staging folder; a failure stops the rest."""
    record = job.build / "state.json"          # of each notebook's last success
    state = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    paths = {"out": job.staging, "data": job.data, "runs": Path(job.profile.runs)}
    paths = {key: str(path.resolve()) for key, path in paths.items()}
    inputs = {name: inputs_of(job, name) for name in names}
    missing = [name for name in names if state.get(name) != [inputs[name], staged(job, name)]]
    for name in names:
        if name not in missing:
            job.say(f"{name}: unchanged, skipped")
            continue
        state.pop(name, None)                  # until it succeeds again
        for file in staged(job, name):         # what it no longer writes must not linger
            (job.staging / file).unlink(missing_ok=True)
    write_text(record, json.dumps(state, indent=1))
    kept = {k: e for k, e in read_manifest(job.staging).items() if e["notebook"] not in missing}
    write_text(job.staging / "manifest.json", manifest_text(kept))

    def run(name: str) -> None:
        job.say(name)
        with job.clocked("notebooks", name):
            execute(job.folder / f"{name}.ipynb", job.build,
                    {"profile": job.profile.name, **paths, **job.given[name]})
        with lock:                             # also where another one fails meanwhile
            state[name] = [inputs[name], staged(job, name)]
            write_text(record, json.dumps(state, indent=1))

    lock = threading.Lock()
    with ThreadPoolExecutor(job.n_jobs) as pool:
        try:
            for future in as_completed([pool.submit(run, name) for name in missing]):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def publish(job: Job) -> int:
    """Put the notebooks' staged artifacts into `out`, all or none; return their number.

    What one of these notebooks no longer writes is removed; artifacts of others stay.
    """
    ready, old = read_manifest(job.staging), read_manifest(job.out)
    new = {k: e for k, e in ready.items() if e["notebook"] in job.names}
    every = {k: e for k, e in old.items() if e["notebook"] not in job.names} | new
    text = manifest_text(every)
    savers = {job.out / "manifest.json": lambda p: p.write_text(text, "utf-8", newline="\n")}
    write_all(savers | {job.out / file: partial(shutil.copyfile, job.staging / file)
                        for entry in new.values() for file in entry["files"]})
    listed = {file for entry in every.values() for file in entry["files"]}
    for file in {file for entry in old.values() for file in entry["files"]} - listed:
        (job.out / file).unlink(missing_ok=True)
    return len(new)


def reproduce(profile: str = "sandbox", out: str | Path = "figures", data: str | Path = "data",
              runs: str | Path = "runs", fresh: bool = False, notebooks: list[str] | None = None,
              parameters: dict[str, str] | None = None, n_jobs: int | None = None,
              folder: str | Path = ROOT / "notebooks", build: str | Path = "build") -> int:
    """Make every figure and table of a profile; earlier ones stay until all notebooks succeeded.

    Args:
        fresh: forget the profile's corpora, runs and executed notebooks first.
        notebooks: names of some in `folder`; None: those of the profile.
        parameters: further ones of notebooks, as YAML; each goes to those that have it.
        n_jobs: runs trained side by side; None: as many as the profile says.
        build: folder of executed notebooks, staged artifacts and the record of what was done.
    Returns:
        number of artifacts in `out`.
    """
    from .data import fingerprint, index_of
    settings = configs.profile(profile, data=str(data), runs=str(runs))
    names = sorted({Path(name).stem for name in notebooks or settings.notebooks or NOTEBOOKS})
    for name in names:
        if not Path(folder, f"{name}.ipynb").is_file():
            there = ", ".join(sorted(p.stem for p in Path(folder).glob("*.ipynb"))) or "none"
            raise ReproduceError(f"no notebook {name!r} in {folder}: there are {there}")
    known = {name: inspect_notebook(Path(folder, f"{name}.ipynb")) for name in names}
    allowed = sorted({k for of in known.values() for k in of} - {"profile", "out", "data", "runs"})
    for key in (parameters or {}).keys() - set(allowed):
        raise ReproduceError(f"no parameter {key!r} for -p: the notebooks take "
                             f"{', '.join(allowed) or 'none'}; the others have flags of their own")
    values = {key: yaml.safe_load(value) for key, value in (parameters or {}).items()}
    given = {name: {k: values[k] for k in values if k in known[name]} for name in names}
    stages = (settings.pretrain, settings.finetune) if settings.faces is None else ()
    licensed = {s.root: s for stage in stages for s in (stage.image, stage.video) if s}.values()
    datasets = [fingerprint(index_of(source), source.root) for source in licensed]
    build = Path(build) / profile
    job = Job(settings, Path(folder), names, given, Path(out), Path(data), build, build / "figures",
              n_jobs or settings.n_jobs)
    for place in (job.out, job.build):       # before minutes of work, and before forgetting
        write_text(place / ".tmp-probe", "")
        (place / ".tmp-probe").unlink()
    if fresh:                                # what the profile made; published files stay
        drawn = [job.data / faces.folder for faces in ablations.corpora(settings)]
        names = {f"{c.stage}-{configs.digest(c)}-*" for c in configurations(settings)}
        trained = [run for name in names for run in Path(runs).glob(name)]
        for old in filter(Path.exists, (*trained, *drawn, job.build)):
            shutil.rmtree(old)
    job.inputs = datasets + prepare(job)
    run_notebooks(job, [name for name in job.names if name not in READERS])
    for name in (name for name in READERS if name in job.names):
        run_notebooks(job, [name])
    count = publish(job)
    if any(kind == "finetune" for kind, *_ in job.spans):
        draw_timeline(job)
    job.say(f"done: {count} figures and tables in {job.out}")
    return count
