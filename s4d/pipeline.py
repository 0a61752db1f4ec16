"""From nothing to every figure: corpora, training, then the notebooks in order; what has not changed is not done again."""
from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from . import config as configs
from .study import ablations
from .artifacts import ROOT, code_version, manifest_text, packages, read_manifest, sha256
from .files import OutputError, write_all, write_text
from .notebooks import NOTEBOOKS, PipelineError, cells_of, check_parameters, execute, select

# Seconds per stage before anything was measured here: corpus, training, one notebook.
EXPECTED = {"smoke": (15, 20, 12), "sandbox": (110, 1150, 25), "night": (440, 7000, 60), "gpu": (400, 1200, 60), "paper": (0, 7 * 86400, 1800)}


def sources(profile: configs.Profile) -> list[configs.Source]:
    """The datasets that a profile reads."""
    named = (profile.pretrain.image, profile.pretrain.video, profile.finetune.image, profile.finetune.video)
    return list({s.root: s for s in named if s is not None}.values())


def check_data(profile: configs.Profile) -> None:
    """Raises PipelineError when a profile of licensed data misses a folder, or finds it empty."""
    if profile.faces is not None:
        return
    for source in sources(profile):
        folder = Path(source.root)
        if not folder.is_dir() or not any(folder.iterdir()):
            state = "is empty" if folder.is_dir() else "does not exist"
            raise PipelineError(f"profile {profile.name} needs the licensed dataset {source.name} in {folder}, which {state}: put it "
                                "there, or name the folder that holds the datasets with DATA=... (--data)")


def check_writable(folder: Path) -> None:
    """Raises OutputError at once, not after half an hour, when a folder cannot be written."""
    write_text(folder / ".tmp-probe", "")
    (folder / ".tmp-probe").unlink()


def configurations(profile: configs.Profile) -> list:
    """Everything that the profile trains, each once, the pre-training first, the comparison next, then what ablations add."""
    grid = [cfg for _, _, _, cfg in profile.methods_grid()]
    more = [t.config for t in ablations.trials(profile)]
    started = [c.init for c in more if isinstance(c.init, configs.Pretrain)]
    return list(dict.fromkeys((profile.pretrain, *grid, *started, *more)))


def run_folders(profile: configs.Profile, cfg) -> list[Path]:
    """Folders in the run store that hold this configuration, whatever its data."""
    return sorted(Path(profile.runs).glob(f"{cfg.stage}-{configs.digest(cfg)}-*"))


def missing_runs(profile: configs.Profile) -> int:
    """Number of configurations that have no finished run; those that differ only in their data share a name and are counted."""
    finished = lambda cfg: sum((d / "provenance.json").is_file() for d in run_folders(profile, cfg))
    alike = {(cfg.stage, configs.digest(cfg)): cfg for cfg in configurations(profile)}
    needed = Counter((cfg.stage, configs.digest(cfg)) for cfg in configurations(profile))
    return sum(max(0, count - finished(alike[name])) for name, count in needed.items())


@dataclass
class Job:
    """One call of `reproduce`: what it runs, where things lie, and the clock."""

    profile: configs.Profile
    names: list[str]
    parameters: dict[str, dict]
    folder: Path                      # of the notebooks
    out: Path
    data: Path
    build: Path                       # build/<profile>: executed notebooks, staged artifacts, state
    jobs: int | None = None           # runs trained side by side; None: as many as the profile says
    started: float = field(default_factory=time.monotonic)
    inputs: str = ""                  # names corpus and runs, once they exist

    @property
    def staging(self) -> Path:
        return self.build / "figures"

    @property
    def measured(self) -> Path:
        """Durations of the last real execution of each stage. Beside build/<profile>, so that FRESH keeps them."""
        return self.build.parent / f"durations-{self.profile.name}.json"

    def given(self) -> dict[str, str]:
        """The parameters that every notebook gets; its working directory is its own folder, so paths are absolute."""
        return {"profile": self.profile.name, "out": str(self.staging.resolve()), "data": str(self.data.resolve()),
                "runs": str(Path(self.profile.runs).resolve())}

    def seconds(self, stage: str) -> float:
        corpus, training, notebook = EXPECTED[self.profile.name.split("-")[0]]      # the recipes of the paper are alike
        return _read_json(self.measured).get(stage, {"corpus": corpus, "training": training}.get(stage, notebook))

    def measure(self, stage: str, started: float) -> None:
        known = _read_json(self.measured)
        write_text(self.measured, json.dumps({**known, stage: round(time.monotonic() - started, 1)}, indent=1, sort_keys=True))

    def say(self, text: str, left: float | None = None) -> None:
        """One line: elapsed time, what happens, about how long everything still takes."""
        print(f"[{clock(time.monotonic() - self.started)}] {text}" + ("" if left is None else f", about {clock(left)} left"), flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}" if minutes >= 60 else f"{minutes}:{s:02d}"


def _read_json(path: Path) -> dict:
    """A file of the build folder; damaged or missing counts as empty, since all of it can be made again."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def forget(job: Job) -> None:
    """Removes what the profile made before: corpus, runs, executed notebooks, staged artifacts. Published ones stay."""
    from .training.runs import forget as forget_runs
    folders = [d for cfg in configurations(job.profile) for d in run_folders(job.profile, cfg)]
    forget_runs(folders)
    folders += [job.build, *(job.data / faces.folder for faces in ablations.corpora(job.profile))]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise OutputError(f"{folder} cannot be removed, so FRESH would not be fresh: make its folder writable, or remove it by hand")


def prepare(job: Job) -> str:
    """Builds the corpus and trains the profile's runs.

    Returns:
        a text that names both, so that notebooks know when to be executed again.
    """
    from .training import run_all
    notebooks = sum(map(job.seconds, job.names))
    missing = missing_runs(job.profile)
    training = job.seconds("training") * missing / len(configurations(job.profile))
    data = _corpus(job, training + notebooks)
    started = time.monotonic()
    job.say(f"training: {missing} runs to go" if missing else "training: all runs found", training + notebooks if missing else None)
    found = run_all(configurations(job.profile), runs=job.profile.runs, workers=job.jobs or job.profile.n_jobs)
    if missing == len(configurations(job.profile)):
        job.measure("training", started)
    weights = [(r.dir / "weights.safetensors") for r in found]
    return json.dumps([data, [(p.parent.name, p.stat().st_size, p.stat().st_mtime_ns) for p in weights]])


def _corpus(job: Job, after: float) -> str:
    if job.profile.faces is None:
        from .data import fingerprint, index_of
        return json.dumps([fingerprint(index_of(s), s.root) for s in sources(job.profile)])
    from .faces import corpus
    found, started = (job.data / job.profile.faces.folder / "corpus.json").is_file(), time.monotonic()
    job.say("corpus: found" if found else "corpus: drawing the faces", None if found else job.seconds("corpus") + after)
    folders = [corpus.ensure(faces, data=job.data, workers=2, progress=sys.stderr.isatty()) for faces in ablations.corpora(job.profile)]
    if not found:
        job.measure("corpus", started)
    return json.dumps([sha256(folder / "corpus.json") for folder in folders])


def inputs_of(job: Job, name: str) -> str:
    """A digest of everything that a notebook's results depend on.

    The cells, the package's code, the packages' versions, the profile, the corpus and runs, the parameters, and the numbers
    that earlier notebooks left (the report reads them).
    """
    earlier = [n for n in NOTEBOOKS if n < name]
    numbers = sorted((file, digest) for entry in read_manifest(job.staging).values() if entry["notebook"] in earlier
                     for file, digest in entry["files"].items() if file.endswith(".csv"))
    parts = [cells_of(job.folder / f"{name}.ipynb"), code_version(), packages(), configs.digest(job.profile),
             job.inputs, job.parameters[name], numbers]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def staged(job: Job, name: str) -> dict[str, str]:
    """File -> digest of a notebook's staged artifacts, as its manifest entries have them."""
    return {f: d for e in read_manifest(job.staging).values() if e["notebook"] == name for f, d in e["files"].items()}


def unchanged(job: Job, name: str) -> bool:
    """True when the notebook's last success had the same inputs and its staged artifacts are still there."""
    last = _read_json(job.build / "state.json").get(name)
    return last is not None and last["inputs"] == inputs_of(job, name) and last["files"] == staged(job, name) and all(
        (job.staging / f).is_file() and sha256(job.staging / f) == d for f, d in last["files"].items())


def run_notebooks(job: Job) -> None:
    """Executes the notebooks that need it, one after another, into the staging folder; stops at the first failure."""
    for i, name in enumerate(job.names):
        if unchanged(job, name):
            job.say(f"{name}: unchanged, skipped")
            continue
        job.say(name, sum(job.seconds(n) for n in job.names[i:] if n == name or not unchanged(job, n)))
        state = {k: v for k, v in _read_json(job.build / "state.json").items() if k != name}
        write_text(job.build / "state.json", json.dumps(state, indent=1))
        discard(job, name)
        inputs, started = inputs_of(job, name), time.monotonic()
        execute(job.folder / f"{name}.ipynb", job.build, {**job.given(), **job.parameters[name]})
        job.measure(name, started)
        state[name] = {"inputs": inputs, "files": staged(job, name)}
        write_text(job.build / "state.json", json.dumps(state, indent=1))


def discard(job: Job, name: str) -> None:
    """Removes a notebook's staged artifacts, so that one it no longer writes does not linger."""
    entries = read_manifest(job.staging)
    if any(e["notebook"] == name for e in entries.values()):
        for file in staged(job, name):
            (job.staging / file).unlink(missing_ok=True)
        write_text(job.staging / "manifest.json", manifest_text({k: e for k, e in entries.items() if e["notebook"] != name}))


def publish(job: Job) -> int:
    """Puts the selected notebooks' staged artifacts in place of those in `out`, all or none; returns their number.

    Artifacts that a selected notebook wrote once and no longer writes are removed; those of other notebooks stay.
    """
    new = {k: e for k, e in read_manifest(job.staging).items() if e["notebook"] in job.names}
    old = read_manifest(job.out)
    kept = {k: e for k, e in old.items() if k not in new and e["notebook"] not in job.names}
    files = {f: d for e in new.values() for f, d in e["files"].items()}
    differing = [f for f, d in files.items() if not (job.out / f).is_file() or sha256(job.out / f) != d]
    savers = {job.out / f: lambda p, f=f: shutil.copyfile(job.staging / f, p) for f in differing}
    text = manifest_text({**kept, **new})
    if savers or not (job.out / "manifest.json").is_file() or {**kept, **new} != old:
        write_all({**savers, job.out / "manifest.json": lambda p: p.write_text(text, encoding="utf-8", newline="\n")})
    stale = {f for e in old.values() for f in e["files"]} - set(files) - {f for e in kept.values() for f in e["files"]}
    for file in stale:
        (job.out / file).unlink(missing_ok=True)
    return len(new)


def reproduce(profile: str = "sandbox", out: str | Path = "figures", data: str | Path = "data", runs: str | Path = "runs",
              fresh: bool = False, notebooks: list[str] | None = None, parameters: dict | None = None,
              folder: str | Path = ROOT / "notebooks", build: str | Path = "build", jobs: int | None = None) -> int:
    """Makes every figure and table of a profile; earlier artifacts are replaced only when all notebooks succeeded.

    Args:
        profile: smoke, sandbox, night, gpu or paper.
        out: folder of the artifacts.
        data, runs: folders of corpora and of trained runs; both are reused.
        fresh: forget the profile's corpus, runs and executed notebooks first.
        notebooks: names of some notebooks; None: those of the profile, which are all six but for night.
        parameters: further notebook parameters; each must be known to a selected notebook.
        folder: of the notebooks.
        build: folder of executed notebooks, staged artifacts and the record of what was done.
        jobs: runs trained side by side; None: as many as the profile says.
    Returns:
        number of artifacts in place.
    Raises:
        ConfigError, PipelineError, OutputError: before anything is computed where possible, one sentence each.
    """
    settings = configs.profile(profile, data=str(data), runs=str(runs))
    if jobs is not None and jobs < 1:
        raise PipelineError(f"jobs is {jobs}: expected the number of runs to train side by side, 1 or more")
    names = select(Path(folder), notebooks or settings.notebooks)
    given = check_parameters(Path(folder), names, parameters or {})
    check_data(settings)
    job = Job(settings, names, given, Path(folder), Path(out), Path(data), Path(build) / profile, jobs)
    check_writable(job.out)             # before anything is forgotten
    if fresh:
        forget(job)
    check_writable(job.build)
    job.inputs = prepare(job)
    run_notebooks(job)
    count = publish(job)
    job.say(f"done: {count} figures and tables in {job.out}")
    return count
