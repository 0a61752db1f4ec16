"""Write files that matter under a temporary name, then rename: readers see old or new, no half."""
import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]       # of the repository


class OutputError(RuntimeError):
    """A result could not be written, or a declared one is missing; the message says which."""


def write(path: str | Path, save: Callable[[Path], object]) -> None:
    """Write one file by a function, as `write_all` does."""
    write_all({Path(path): save})


def write_text(path: str | Path, text: str) -> None:
    """Write one UTF-8 text file, with the same bytes on every system."""
    write(path, lambda p: p.write_text(text, encoding="utf-8", newline="\n"))


def write_all(savers: dict[Path, Callable[[Path], object]]) -> None:
    """Write several files, each by its function, or raise OutputError and change none."""
    drafts = {path: path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}") for path in savers}
    try:
        for path, save in savers.items():
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                save(drafts[path])
                with open(drafts[path], "rb+") as file:      # on the disk, to outlive a power cut
                    os.fsync(file.fileno())
        for path, draft in drafts.items():
            with writing(path):
                os.replace(draft, path)
    finally:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise OutputError for a full, read-only or missing folder."""
    try:
        yield
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write {path}: {cause}; free space or choose another folder, "
                          "then call again") from error


def sha256(path: str | Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@lru_cache
def code_version() -> str:
    """Return twelve hex digits that name the package's sources."""
    state = hashlib.sha256()
    for path in sorted(p for p in (ROOT / "s4d").rglob("*") if p.suffix in (".py", ".mplstyle")):
        state.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return state.hexdigest()[:12]
