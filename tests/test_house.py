"""The house's own rules: how large the rooms are, and which way the imports go."""
from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "s4d").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CORE = ("config", "emotions", "__init__", "__main__", "models", "data", "training")
LIMITS = {"package": 10_000, "core": 4_500, "tests": 6_500}    # lines
# Each room may import from rooms above it and from its own.
STOREYS = (("config", "emotions", "files"), ("models", "data", "faces"),
           ("training",), ("study",), ("panels", "bench", "notebooks", "verify"),
           ("reproduce",), ("commands",), ("__main__",))
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
           for p in PACKAGE}


def lines(paths) -> int:
    return sum(len(p.read_text("utf-8").splitlines()) for p in paths)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(module: str, path: Path) -> set[str]:
    """Modules of the package that a module imports, in functions too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "s4d"}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            if base.split(".")[0] == "s4d":
                named = {f"{base}.{a.name}" for a in node.names}
                found |= {name if name in MODULES else base for name in named}
    return found - {module}


GRAPH = {module: imports(module, path) for module, path in MODULES.items()}


def test_the_package_is_lean():
    core = [p for p in PACKAGE if p.relative_to(ROOT / "s4d").parts[0].removesuffix(".py") in CORE]
    sizes = {"package": lines(PACKAGE), "core": lines(core), "tests": lines(TESTS)}
    assert all(sizes[name] <= most for name, most in LIMITS.items()), sizes
    long = {p.name: lines([p]) for p in PACKAGE if lines([p]) > 350}
    assert not long, "no module has more than 350 lines"


def test_lines_fit_the_page():
    written = [line for p in PACKAGE + TESTS for line in p.read_text("utf-8").splitlines() if line]
    assert sum(len(line) > 100 for line in written) <= 0.01 * len(written)


def test_no_import_goes_in_a_circle():
    waiting = {m: {i for i in found if i in GRAPH} for m, found in GRAPH.items()}
    while waiting:
        free = {m for m, found in waiting.items() if not found & set(waiting)}
        assert free, f"a circle goes through {', '.join(sorted(waiting))}"
        waiting = {m: found for m, found in waiting.items() if m not in free}


def test_imports_go_one_way_through_the_rooms():
    level = {name: i for i, names in enumerate(STOREYS) for name in names}
    for module, found in GRAPH.items():
        for other in found:
            here, there = room(module), room(other)
            if here != there and "__init__" not in (here, there):
                assert level[there] < level[here], f"{module} imports {other}"


def test_every_room_has_its_place():
    assert {room(m) for m in MODULES} - {"__init__"} <= {n for names in STOREYS for n in names}
