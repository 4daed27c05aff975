"""The house's rules about imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import segearth

PACKAGE = Path(segearth.__file__).parent
FLOORS = {
    0: ["structures", "segmenter", "model_types", "config", "errors", "utils"],
    1: ["layers", "text", "preprocessing", "geo", "metrics"],
    2: ["models", "losses", "data"],
    3: ["inference", "convert", "prompting"],
    4: ["evaluation", "zoo"],
    5: ["training", "rl", "integrations", "benchmark", "web", "archives"],
    6: ["cli"],
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


@cache
def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


@cache
def imports_of(path: Path) -> set[str]:
    """Modules of this package that a file imports, inside functions too; typing-only imports are left out."""
    known = modules()
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(a.name for a in child.names if a.name.startswith("segearth"))
            elif isinstance(child, ast.ImportFrom) and (child.module or "").startswith("segearth"):
                full = [f"{child.module}.{alias.name}" for alias in child.names]
                found.update(name if name in known else child.module or "" for name in full)
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def test_a_module_imports_only_from_floors_below_or_its_own_room() -> None:
    breaches = []
    for name, path in modules().items():
        if name == "segearth":
            continue
        room = name.split(".")[1]
        for imported in imports_of(path):
            if imported == "segearth":  # the version
                continue
            other = imported.split(".")[1]
            own_room = other == room
            floor_zero = FLOOR_OF[room] == FLOOR_OF[other] == 0
            if not own_room and not floor_zero and FLOOR_OF[other] >= FLOOR_OF[room]:
                breaches.append(f"{name} imports {imported}")
    assert breaches == []


def test_there_is_no_cycle() -> None:
    graph = {name: imports_of(path) for name, path in modules().items() if name != "segearth"}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for other in graph.get(name, ()):
            walk(other, (*trail, name))
        done.add(name)

    for name in graph:
        walk(name, ())


def test_nothing_prints() -> None:
    for name, path in modules().items():
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), name


def test_one_place_decides_which_copies_need_not_be_waited_for() -> None:
    """It knows which devices may be left alone with ordinary memory; see the module."""
    saying = [name for name, path in modules().items() if "non_blocking" in path.read_text(encoding="utf-8")]
    assert saying == ["segearth.utils.devices"]


def test_import_is_light() -> None:
    code = (
        "import time, sys; start = time.perf_counter(); import segearth; "
        "print(time.perf_counter() - start, 'torch' in sys.modules)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds, torch_loaded = zip(*(run.stdout.split() for run in runs), strict=True)
    assert set(torch_loaded) == {"False"}
    assert min(map(float, seconds)) < 0.5
