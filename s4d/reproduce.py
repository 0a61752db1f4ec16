"""From nothing to every figure: corpora, training, then the notebooks in order."""
from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from tqdm import tqdm

from . import config as configs
from .config import Profile
from .files import ROOT, OutputError, code_version, sha256, write_all, write_text
from .notebooks import NOTEBOOKS, ReproduceError, cells_of, check_parameters, execute, select
from .study import ablations
from .study.artifacts import manifest_text, read_manifest

# Seconds per stage on two cores: corpus, training, one notebook.
EXPECTED = {"smoke": (15, 20, 12), "sandbox": (110, 1150, 25), "night": (440, 7000, 60),
            "gpu": (400, 1200, 60), "paper": (0, 7 * 86400, 1800)}


@dataclass
class Job:
    """One call of `reproduce`: what it runs, where things lie, and the clock."""

    profile: Profile
    names: list[str]                  # of notebooks, in order
    parameters: dict[str, dict]       # by notebook
    folder: Path                      # of the notebooks
    out: Path
    data: Path
    build: Path                       # build/<profile>: executed notebooks, staged artifacts, state
    n_jobs: int | None = None         # runs trained side by side; None: the profile's number
    started: float = field(default_factory=time.monotonic)
    inputs: str = ""                  # names corpus and runs, once they exist

    @property
    def staging(self) -> Path:
        return self.build / "figures"

    def seconds(self, stage: str) -> float:
        """Expected duration of a stage: corpus, training, or a notebook."""
        corpus, training, notebook = EXPECTED[self.profile.name.split("-")[0]]
        return {"corpus": corpus, "training": training}.get(stage, notebook)

    def say(self, text: str, left: float | None = None) -> None:
        """Print one line: elapsed time, what happens, about how long everything still takes."""
        rest = "" if left is None else f", about {tqdm.format_interval(left)} left"
        print(f"[{tqdm.format_interval(time.monotonic() - self.started)}] {text}{rest}", flush=True)


def _read_json(path: Path) -> dict:
    """Read a file of the build folder; a damaged or missing one counts as empty."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


# Corpora and runs --------------------------------------------------------------------------------

def sources(profile: Profile) -> list[configs.Source]:
    """Return the datasets that a profile reads."""
    stages = (profile.pretrain, profile.finetune)
    named = [source for stage in stages for source in (stage.image, stage.video) if source]
    return list({s.root: s for s in named}.values())


def check_data(profile: Profile) -> None:
    """Raise ReproduceError when a folder of licensed data is missing or empty."""
    for source in sources(profile) if profile.faces is None else ():
        folder = Path(source.root)
        if not folder.is_dir() or not any(folder.iterdir()):
            state = "is empty" if folder.is_dir() else "does not exist"
            raise ReproduceError(
                f"profile {profile.name} needs the licensed dataset {source.name} in {folder}, "
                f"which {state}: put it there, or name the folder that holds the datasets with "
                "DATA=... (--data)")


def configurations(profile: Profile) -> list:
    """Return all that the profile trains, each once: pre-training, comparison, ablations."""
    grid = [cfg for _, _, _, cfg in profile.methods_grid()]
    more = [t.config for t in ablations.trials(profile)]
    started = [c.init for c in more if isinstance(c.init, configs.Pretrain)]
    return list(dict.fromkeys((profile.pretrain, *grid, *started, *more)))


def run_folders(profile: Profile, cfg) -> list[Path]:
    """Return the folders of the run store that hold this configuration, whatever its data."""
    return sorted(Path(profile.runs).glob(f"{cfg.stage}-{configs.digest(cfg)}-*"))


def missing_runs(profile: Profile) -> int:
    """Count the configurations without a finished run; equal names on other data count each."""
    needed, folders = Counter(), {}
    for cfg in configurations(profile):
        name = f"{cfg.stage}-{configs.digest(cfg)}"
        needed[name] += 1
        folders[name] = run_folders(profile, cfg)
    finished = {name: sum((d / "provenance.json").is_file() for d in folders[name])
                for name in needed}
    return sum(max(0, count - finished[name]) for name, count in needed.items())


def forget(job: Job) -> None:
    """Remove what the profile made: corpora, runs, executed notebooks. Published files stay."""
    folders = [d for cfg in configurations(job.profile) for d in run_folders(job.profile, cfg)]
    folders += [job.data / faces.folder for faces in ablations.corpora(job.profile)]
    for folder in (*folders, job.build):
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise OutputError(f"{folder} cannot be removed, so FRESH would not be fresh: make its "
                              "folder writable, or remove it by hand")


def prepare(job: Job) -> str:
    """Draw the corpora and train the runs; return a text that names both."""
    from .training import run_all
    every, missing = configurations(job.profile), missing_runs(job.profile)
    notebooks = sum(map(job.seconds, job.names))
    left = job.seconds("training") * missing / len(every) + notebooks
    data = _corpora(job, left)
    if missing:
        job.say(f"training: {missing} runs to go", left)
    else:
        job.say("training: all runs found")
    found = run_all(every, runs=job.profile.runs, workers=job.n_jobs or job.profile.n_jobs)
    weights = [run.dir / "weights.safetensors" for run in found]
    stats = [(p.parent.name, p.stat().st_size, p.stat().st_mtime_ns) for p in weights]
    return json.dumps([data, stats])


def _corpora(job: Job, left: float) -> list[str]:
    if job.profile.faces is None:
        from .data import fingerprint, index_of
        return [fingerprint(index_of(s), s.root) for s in sources(job.profile)]
    from .faces import corpus
    found = (job.data / job.profile.faces.folder / "corpus.json").is_file()
    if found:
        job.say("corpus: found")
    else:
        job.say("corpus: drawing the faces", job.seconds("corpus") + left)
    folders = [corpus.ensure(faces, data=job.data, workers=2, progress=sys.stderr.isatty())
               for faces in ablations.corpora(job.profile)]
    return [sha256(folder / "corpus.json") for folder in folders]


# Execution and publication -----------------------------------------------------------------------

def inputs_of(job: Job, name: str) -> str:
    """Digest all that a notebook depends on: cells, code, settings, data, runs, earlier numbers."""
    earlier = {n for n in NOTEBOOKS if n < name}
    entries = [e for e in read_manifest(job.staging).values() if e["notebook"] in earlier]
    numbers = sorted(f for e in entries for f in e["files"].items() if f[0].endswith(".csv"))
    packages = sorted(f"{d.name} {d.version}" for d in distributions())
    parts = [cells_of(job.folder / f"{name}.ipynb"), code_version(), packages,
             configs.digest(job.profile), job.inputs, job.parameters[name], numbers]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def staged(job: Job, name: str) -> dict[str, str]:
    """Return file -> digest of a notebook's staged artifacts."""
    entries = [e for e in read_manifest(job.staging).values() if e["notebook"] == name]
    return {file: digest for e in entries for file, digest in e["files"].items()}


def unchanged(job: Job, name: str) -> bool:
    """Tell whether a notebook's last success had the same inputs and its artifacts are there."""
    last, files = _read_json(job.build / "state.json").get(name), staged(job, name)
    if last is None or last["inputs"] != inputs_of(job, name) or last["files"] != files:
        return False
    paths = {job.staging / file: digest for file, digest in files.items()}
    return all(path.is_file() and sha256(path) == digest for path, digest in paths.items())


def run_notebooks(job: Job) -> None:
    """Execute the notebooks that need it into the staging folder; stop at the first failure."""
    for i, name in enumerate(job.names):
        if unchanged(job, name):
            job.say(f"{name}: unchanged, skipped")
            continue
        job.say(name, sum(map(job.seconds, job.names[i:])))
        state = _read_json(job.build / "state.json")
        state.pop(name, None)
        write_text(job.build / "state.json", json.dumps(state, indent=1))
        discard(job, name)
        inputs = inputs_of(job, name)
        paths = {"out": job.staging, "data": job.data, "runs": Path(job.profile.runs)}
        given = {key: str(path.resolve()) for key, path in paths.items()}
        execute(job.folder / f"{name}.ipynb", job.build,
                {"profile": job.profile.name, **given, **job.parameters[name]})
        state[name] = {"inputs": inputs, "files": staged(job, name)}
        write_text(job.build / "state.json", json.dumps(state, indent=1))


def discard(job: Job, name: str) -> None:
    """Remove a notebook's staged artifacts, so that one it no longer writes does not linger."""
    for file in staged(job, name):
        (job.staging / file).unlink(missing_ok=True)
    entries = read_manifest(job.staging)
    kept = {k: e for k, e in entries.items() if e["notebook"] != name}
    if kept != entries:
        write_text(job.staging / "manifest.json", manifest_text(kept))


def publish(job: Job) -> int:
    """Put the selected notebooks' staged artifacts into `out`, all or none; return their number.

    Artifacts that a selected notebook no longer writes are removed; those of others stay.
    """
    new = {k: e for k, e in read_manifest(job.staging).items() if e["notebook"] in job.names}
    old = read_manifest(job.out)
    kept = {k: e for k, e in old.items() if k not in new and e["notebook"] not in job.names}
    text = manifest_text({**kept, **new})
    files = {f: d for e in new.values() for f, d in e["files"].items()}
    savers = {job.out / "manifest.json": lambda p: p.write_text(text, "utf-8", newline="\n")}
    for file, digest in files.items():
        target = job.out / file
        if not target.is_file() or sha256(target) != digest:
            savers[target] = lambda p, source=job.staging / file: shutil.copyfile(source, p)
    if len(savers) > 1 or {**kept, **new} != old or not (job.out / "manifest.json").is_file():
        write_all(savers)
    owned = {f for e in kept.values() for f in e["files"]} | set(files)
    for file in {f for e in old.values() for f in e["files"]} - owned:
        (job.out / file).unlink(missing_ok=True)
    return len(new)


def reproduce(profile: str = "sandbox", out: str | Path = "figures", data: str | Path = "data",
              runs: str | Path = "runs", fresh: bool = False, notebooks: list[str] | None = None,
              parameters: dict | None = None, folder: str | Path = ROOT / "notebooks",
              build: str | Path = "build", n_jobs: int | None = None) -> int:
    """Make every figure and table of a profile; earlier ones stay until all notebooks succeeded.

    Args:
        out: folder of the artifacts.
        data, runs: folders of corpora and of trained runs; both are reused.
        fresh: forget the profile's corpora, runs and executed notebooks first.
        notebooks: names of some; None: those of the profile.
        parameters: further notebook parameters; each must be known to a selected notebook.
        folder: of the notebooks.
        build: folder of executed notebooks, staged artifacts and the record of what was done.
        n_jobs: runs trained side by side; None: as many as the profile says.
    Returns:
        number of artifacts in place.
    Raises:
        ConfigError, ReproduceError, OutputError: before anything is computed where possible.
    """
    settings = configs.profile(profile, data=str(data), runs=str(runs))
    if n_jobs is not None and n_jobs < 1:
        raise ReproduceError(f"n_jobs is {n_jobs}: expected the number of runs to train side by "
                             "side, 1 or more")
    names = select(Path(folder), notebooks or settings.notebooks)
    given = check_parameters(Path(folder), names, parameters or {})
    check_data(settings)
    job = Job(settings, names, given, Path(folder), Path(out), Path(data),
              Path(build) / profile, n_jobs)
    for place in (job.out, job.build):       # before half an hour of work, and before forgetting
        write_text(place / ".tmp-probe", "")
        (place / ".tmp-probe").unlink()
    if fresh:
        forget(job)
    job.inputs = prepare(job)
    run_notebooks(job)
    count = publish(job)
    job.say(f"done: {count} figures and tables in {job.out}")
    return count
