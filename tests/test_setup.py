"""What setup.py installs is what the code imports, and the built wheel works without the checkout."""

from __future__ import annotations

import ast
import importlib.util
import platform
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
# Names under which packages are imported, where they differ.
IMPORTED_AS = {
    "opencv-python-headless": "cv2", "pillow": "PIL", "pytest-xdist": "xdist", "huggingface-hub": "huggingface_hub",
}  # fmt: skip
# Needed without an import of their own: by a part of torch that the code calls, as plugins, or as programs.
NEEDED_BY = {
    "tensorboard": "torch.utils.tensorboard", "onnx": "torch.onnx", "onnxscript": "torch.onnx",
    "python-multipart": "fastapi's forms", "peft": "LoRA in trl and in training",
    "pytest-xdist": "-n 2 of tests/run.sh", "ruff": "tests/run.sh", "mypy": "tests/run.sh",
    "setuptools": "test_wheel.py", "mutmut": "tools/mutation.py",
}  # fmt: skip
# Imported, and brought by a package that is required; detectron2 and QGIS have no wheel that could be.
BROUGHT_BY = {
    "yaml": "omegaconf", "tokenizers": "transformers", "triton": "torch", "detectron2": "", "qgis": "",
    "accelerate": "trl", "sentence_transformers": "",  # only for rewards that compare sentences by their meaning
    "supervision": "",  # it brings a second OpenCV, so no extra installs it
    "pyproj": "geopandas", "pandas": "geopandas", "pyarrow": "datasets", "starlette": "fastapi", "anyio": "fastapi",
}  # fmt: skip


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compatibility", ROOT / "tools/compatibility.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


COMPATIBILITY = load_tool()
declared = COMPATIBILITY.declared  # the literal lists of setup.py, which need not be run for it


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}


@cache
def imported(folder: str) -> set[str]:
    """Top-level packages that files import, inside functions too; what only a type checker reads is left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "geo_package" and node.args:
            name = node.args[0]
            found.add(str(name.value).split(".")[0] if isinstance(name, ast.Constant) else "")
        for child in ast.iter_child_nodes(node):
            visit(child)

    for path in sorted((ROOT / folder).rglob("*.py")):
        visit(ast.parse(path.read_text(encoding="utf-8")))
    return found - set(sys.stdlib_module_names) - {"segearth", ""}


def modules(packages: set[str]) -> set[str]:
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in packages}


def test_nothing_is_installed_that_no_code_needs() -> None:
    requires, extras = declared()
    library, tests = imported("segearth"), imported("segearth") | imported("tests") | imported("tools")
    unused = {name for name in names(requires) if not modules({name}) & library}
    for extra, requirements in extras.items():
        used = tests if extra == "dev" else library
        unused |= {name for name in names(requirements) - NEEDED_BY.keys() if not modules({name}) & used}
    assert unused == set()


def test_everything_imported_is_installed() -> None:
    requires, extras = declared()
    known = modules(names([*requires, *(line for name, lines in extras.items() if name != "dev" for line in lines)]))
    assert imported("segearth") - known - BROUGHT_BY.keys() == set()
    for module, package in BROUGHT_BY.items():
        assert module in imported("segearth") and (not package or modules({package}) <= known), module


def test_every_extra_that_an_error_or_a_page_names_exists() -> None:
    _, extras = declared()
    named = set()
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "Dockerfile"]
    for path in sorted([*(ROOT / "segearth").rglob("*.py"), *pages]):
        text = path.read_text(encoding="utf-8")
        named |= {extra for found in re.findall(r"(?:segearth|\.)\[([a-z,]+)\]", text) for extra in found.split(",")}
        named |= set(re.findall(r"MissingExtraError\([^)]*\"(\w+)\"(?:, error)?\)", text))
    assert named >= {"train", "onnx", "quant"}
    assert named <= extras.keys()


def test_the_image_gets_all_that_it_is_built_from() -> None:
    """The file that says what Docker may see names all that the Dockerfile copies, and that is there."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    seen = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert "segearth" in copied and seen[0] == "**"
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in seen, name


def test_the_table_of_extras_is_complete() -> None:
    _, extras = declared()
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == extras.keys()


def test_every_bound_is_tested_somewhere() -> None:
    """A package without a lower bound would be installed as old as it happens to be."""
    requires, extras = declared()
    for line in [*requires, *(line for lines in extras.values() for line in lines)]:
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\w.]+(,<[\w.]+)?", line), line


@pytest.mark.parametrize("version", COMPATIBILITY.PYTHONS)
def test_each_python_has_one_pin_a_package(version: str) -> None:
    """constraints.txt pins every package that setup.py names once for each Python; two pins install nothing."""
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    chosen = [pin for pin in pins if not pin.marker or pin.marker.evaluate({"python_version": version})]
    counted = sorted(pin.name.lower().replace("_", "-") for pin in chosen)
    assert counted == sorted(set(counted))
    requires, extras = declared()
    assert names([*requires, *(line for lines in extras.values() for line in lines)]) <= set(counted) | {"setuptools"}
    for line in [*requires, *(line for lines in extras.values() for line in lines)]:
        wanted = Requirement(line)
        for pin in chosen:
            if pin.name.lower().replace("_", "-") == wanted.name.lower().replace("_", "-"):
                assert wanted.specifier.contains(next(iter(pin.specifier)).version), line


def test_the_oldest_environment_is_that_of_the_bounds() -> None:
    requires, extras = declared()
    pins = COMPATIBILITY.oldest_pins().splitlines()
    assert "torch==2.6" in pins and "deepspeed==0.17.1" in pins and any(pin.startswith("pytest==") for pin in pins)
    bounds = {line.split(",")[0].replace(">=", "==") for line in [*requires, *extras["train"], *extras["onnx"]]}
    assert bounds <= set(pins)
    assert names(pins) == names([*requires, *extras["train"], *extras["onnx"], *extras["dev"]]) - {"setuptools"}


def test_the_other_extras_are_as_old_as_their_bounds_in_an_environment_of_their_own() -> None:
    _, extras = declared()
    assert {*COMPATIBILITY.EXTRAS, *COMPATIBILITY.MORE_EXTRAS, "quant", "dev", "mutation"} == extras.keys()
    pins = COMPATIBILITY.oldest_pins(COMPATIBILITY.OLDEST_EXTRAS).splitlines()
    others = [line for extra in COMPATIBILITY.MORE_EXTRAS for line in extras[extra]]
    assert "ray==2.40" in pins and "shapely==2.1.1" in pins
    assert names(pins) == names([*others, *extras["dev"], "torch", "torchvision"]) - {"setuptools"}
    assert [pin for pin in pins if pin.startswith("torch==")] == ["torch==2.13.0"]


def test_every_allowed_python_is_tried() -> None:
    allowed = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert [f"3.{minor}" for minor in range(int(allowed[1]), int(allowed[2]))] == list(COMPATIBILITY.PYTHONS)
    found = COMPATIBILITY.find_python(".".join(platform.python_version_tuple()[:2]))
    assert found and Path(found).exists()
    assert COMPATIBILITY.find_python("2.0") is None


def test_what_a_run_of_pytest_came_to_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1 failed in 1.00s\n")  # of an earlier run in an environment that was kept
    tests = tmp_path / "test_two.py"  # outside of the checkout, whose conftest.py imports torch
    tests.write_text("def test_one(): pass\ndef test_two(): pass\n")
    result = COMPATIBILITY.run_tests(Path(sys.executable), log, ["-c", str(ROOT / "pyproject.toml"), str(tests)])
    assert re.fullmatch(r"2 passed in .+", result[0]) and result[1]
    assert len(COMPATIBILITY.versions(Path(sys.executable))) == 1 + len(COMPATIBILITY.SHOWN)


@pytest.mark.parametrize(("said", "code", "result"), [
    ("1 passed, 1 xfailed in 3.25s", 0, ("1 passed, 1 xfailed in 3.25s", True)),
    ("== 1 failed, 2 passed in 65.00s (0:01:05) ==", 1, ("1 failed, 2 passed in 65.00s (0:01:05)", False)),
    ("2 errors in 3.25s", 1, ("2 errors in 3.25s", False)),
    ("2 deselected in 3.25s", 5, ("2 deselected in 3.25s", False)),
    ("Killed", 137, ("ended without a result: see log", False)),
])  # fmt: skip
def test_other_endings_are_read(tmp_path: Path, said: str, code: int, result: tuple[str, bool]) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    python.chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    assert COMPATIBILITY.run_tests(python, log, []) == result
