"""Mutation testing: changes one line of a module at a time and reports the changes that no test notices.

    python tools/mutation.py claims builder          # modules by name (--list shows them)
    python tools/mutation.py claims:_ranked          # only the mutants of one function or method
    python tools/mutation.py records --minutes 20    # how long one module may take

Works on a copy of the checkout in a temporary folder, with mutmut (the extra `mutation`). See docs/testing.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Quick tests run first, since most changes are noticed by them within milliseconds; mutmut has no order of its own.
# Modules that tests and fixtures need are imported once, before processes are forked: transformers alone takes seven
# seconds. They are then hidden from the garbage collector, which would otherwise scan all of torch in every fork.
PLUGIN = '''
import contextlib, gc, importlib, json, pathlib
from segearth.utils.torchvision_mend import mend_torchvision

mend_torchvision()  # transformers imports it
for name in WARM:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

def pytest_collection_modifyitems(items):
    stats = pathlib.Path("mutmut-stats.json")
    if stats.is_file():
        seconds = json.loads(stats.read_text())["duration_by_test"]
        items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))

def pytest_sessionfinish():
    gc.freeze()
'''
# A fork server imports torch and the tests once and never runs them itself, so that forks of it are safe.
# Failing properties are not shrunk (see tests/conftest.py): that a change is noticed is all that counts here.
SETTINGS = """
[tool.mutmut]
source_paths = ["segearth"]
only_mutate = ["{source}"]
also_copy = [{others}]
process_isolation = "forkserver"
use_git_change_detection = false
pytest_add_cli_args_test_selection = [{tests}]
pytest_add_cli_args = [
    "-p", "no:cacheprovider", "-p", "mutation_order", "-m", "not slow", "--hypothesis-profile=mutation",
]
"""
DIFFS = '''
import sys
from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant

for name in sys.argv[1:]:
    print("# " + name, get_diff_for_mutant(name, path=find_mutant(name).path), sep="\\n")
'''
COPIED = ("segearth", "configs", "tests", "setup.py", "pyproject.toml", "constraints.txt", "README.md")


class Module(NamedTuple):
    """What is mutated, and the tests that have to notice.

    Attributes:
        source: File in which lines are changed.
        tests: The tests that run against each change; where they are few and fast, so is the run.
        only: Functions or methods to change; empty for all of the file.
        warm: What its tests import when they run, and is better imported once, before the forks.
    """

    source: str
    tests: tuple[str, ...]
    only: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()


MODEL = ("transformers.models.phi.modeling_phi", "segearth.zoo.lookup")  # what the debug model is built of
EXPRESSIONS = "segearth/data/questions"
EXPRESSION_TESTS = "tests/data/questions"
MODULES: dict[str, Module] = {
    "builder": Module(f"{EXPRESSIONS}/builder.py", (f"{EXPRESSION_TESTS}/test_builder.py",)),
    "claims": Module(
        f"{EXPRESSIONS}/claims.py",
        (f"{EXPRESSION_TESTS}/test_claims.py", f"{EXPRESSION_TESTS}/test_claims_absence.py"),
    ),
    "propose": Module(f"{EXPRESSIONS}/propose.py", (f"{EXPRESSION_TESTS}/test_propose.py",)),
    "regions": Module(f"{EXPRESSIONS}/regions.py", (f"{EXPRESSION_TESTS}/test_regions.py",)),
    "table": Module(f"{EXPRESSIONS}/table.py", (f"{EXPRESSION_TESTS}/test_table.py",)),
    "wording": Module(f"{EXPRESSIONS}/wording.py", (f"{EXPRESSION_TESTS}/test_wording.py",)),
    "annotation": Module("segearth/data/questions/annotation.py", ("tests/data/questions/test_annotation.py",)),
    "phrases": Module("segearth/data/readers/phrase_list.py", ("tests/data/readers/test_phrase_list.py",)),
    "transform": Module("segearth/preprocessing/transform.py", ("tests/preprocessing/test_transform.py",)),
    "loading": Module("segearth/data/feed/loading.py", ("tests/data/feed/test_loading.py",), warm=MODEL),
    "views": Module("segearth/data/feed/views.py", ("tests/data/feed/test_views.py",)),
    "sampler": Module("segearth/data/feed/sampling.py", ("tests/data/feed/test_sampling.py",)),
    "packing": Module("segearth/models/packing.py", ("tests/models/test_packing.py",)),
    "criterion": Module("segearth/losses/criterion.py", ("tests/losses",)),
    "optimisation": Module(
        "segearth/training/optimisation.py", ("tests/training/test_optimisation.py",), warm=(*MODEL, "peft")
    ),
    "muon": Module("segearth/training/muon.py", ("tests/training/test_muon.py",), warm=MODEL),
    "known_words": Module("segearth/text/known_words.py", ("tests/text/test_known_words.py",)),
    "predictor": Module(
        "segearth/inference/predictor.py",
        tuple(f"tests/inference/test_{name}.py" for name in ("predictor", "deciding", "several_images")), warm=MODEL,
    ),
    "deciding": Module("segearth/inference/deciding.py", ("tests/inference/test_deciding.py",), warm=MODEL),
    "structures": Module("segearth/structures.py", ("tests/test_structures.py",)),
    "segmenter": Module("segearth/segmenter.py", ("tests/test_segmenter.py",), warm=MODEL),
    "masks": Module("segearth/metrics/masks.py", ("tests/metrics/test_masks.py",)),
    **{
        name: Module(f"segearth/metrics/{name}.py", (f"tests/metrics/test_{name}.py",))
        for name in ("boxes", "matching", "text", "choices")
    },
    "bootstrap": Module("segearth/metrics/bootstrap.py", ("tests/metrics/test_bootstrap.py",)),
    "records": Module("segearth/evaluation/records.py", ("tests/evaluation/test_records.py",)),
    "controls": Module("segearth/evaluation/controls.py", ("tests/evaluation/test_controls.py",)),
    "listening": Module("segearth/evaluation/listening.py", ("tests/evaluation/test_listening.py",)),
    "calibration": Module("segearth/evaluation/calibration.py", ("tests/evaluation/test_calibration.py",)),
    "confidence": Module("segearth/evaluation/confidence.py", ("tests/evaluation/test_confidence.py",), warm=MODEL),
    "protocols": Module("segearth/evaluation/protocols.py", ("tests/evaluation/test_protocols.py",)),
    "batches": Module("segearth/evaluation/batches.py", ("tests/evaluation/test_batches.py",)),
    "evaluator": Module("segearth/evaluation/evaluator.py", ("tests/evaluation/test_evaluator.py",)),
    "report": Module("segearth/evaluation/report.py", ("tests/evaluation/test_report.py",)),
}


def main() -> int:
    """Runs each module that is asked for; returns 1 if one is not whole (its tests fail, or time ran out)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE[:FUNCTION]", help="names as --list shows them")
    parser.add_argument("--list", action="store_true", help="print the modules with their tests")
    parser.add_argument("--minutes", type=float, default=8, help="longest time for one module (default 8)")
    parser.add_argument("--processes", type=int, default=2, help="mutants tested side by side (default 2)")
    args = parser.parse_args()
    if args.list or not args.modules:
        for name, module in MODULES.items():
            print(f"{name:14} {module.source:42} {' '.join(module.tests)} {' '.join(module.only)}".rstrip())
        return 0
    unknown = sorted({name.partition(":")[0] for name in args.modules} - set(MODULES))
    if unknown:
        parser.error(f"unknown module {', '.join(unknown)}; known: {', '.join(MODULES)}")
    if shutil.which("mutmut", path=str(Path(sys.executable).parent)) is None:
        parser.error("mutmut is missing; run: python -m pip install -c constraints.txt -e '.[mutation]'")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else `timeout` would leave mutants and the copy behind
    whole = [run(name, args.minutes, args.processes) for name in args.modules]
    return 0 if all(whole) else 1


def run(name: str, minutes: float, processes: int) -> bool:
    """Mutates one module in a copy and prints what came of it; returns whether every mutant was tried."""
    key, _, function = name.partition(":")
    module = MODULES[key]
    prefix = module.source.removesuffix(".py").replace("/", ".")
    wanted = (function,) if function else module.only
    # mutmut calls a function x_NAME and a method xǁCLASSǁNAME; a pattern may name either.
    patterns = [f"{prefix}.x*{pattern}__mutmut_*" for pattern in wanted]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="segearth-mutation-") as folder:
        copy = Path(folder)
        prepare(copy, module)
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes), *patterns]
        log, ended = bounded(command, copy, minutes * 60)
        found = statuses(copy)
        chosen = {k: v for k, v in found.items() if not wanted or matches(k, prefix, wanted)}
        if not chosen or (ended and "not checked" in chosen.values()):
            print(log[-4000:])
            print(f"{name}: no result; see above (do its tests pass?)")
            return False
        survivors = [k for k, v in chosen.items() if v not in ("killed", "timeout", "not checked")]
        print(python(copy, "-c", DIFFS, *survivors))
    counts = Counter(chosen.values())
    tried = len(chosen) - counts["not checked"]
    caught = counts["killed"] + counts["timeout"]
    others = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    share = 100 * caught / max(tried, 1)
    print(f"{name}: {len(chosen)} mutants, {share:.1f} % noticed ({others}), {time.monotonic() - started:.0f} s")
    if not ended:
        print(f"{name}: stopped after {minutes:g} minutes; give more with --minutes, or one function with {key}:NAME")
    return ended


def prepare(copy: Path, module: Module) -> None:
    """Copies what the tests need and tells mutmut what to change."""
    for entry in COPIED:
        source, target = ROOT / entry, copy / entry
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    (copy / "mutants").mkdir()  # Python drops folders of PYTHONPATH that do not exist when it starts
    plugin = PLUGIN.replace("WARM", repr(module.warm))
    (copy / "mutants/mutation_order.py").write_text(plugin, encoding="utf-8")
    tests = ", ".join(f'"{path}"' for path in module.tests)
    others = ", ".join(f'"{entry}"' for entry in COPIED if entry not in ("segearth", "tests"))
    settings = SETTINGS.format(source=module.source, others=others, tests=tests)
    with (copy / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(settings)


def bounded(command: list[str], folder: Path, seconds: float) -> tuple[str, bool]:
    """Runs a command, its children included, for at most so long; returns its output and whether it ended by itself."""
    log = folder / "mutation.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(seconds)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            if process.poll() is None:  # also when the user presses Ctrl-C: no mutant may run on without us
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return log.read_text(errors="replace"), ended


def environment(folder: Path) -> dict[str, str]:
    """Imports come from the mutated copy, and every process keeps to one thread."""
    return {
        **os.environ,
        "PYTHONPATH": str(folder / "mutants"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def python(copy: Path, *arguments: str) -> str:
    """Runs Python in the copy, to ask about a finished run; returns what it printed."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=environment(copy), stdout=subprocess.PIPE, text=True).stdout


def statuses(copy: Path) -> dict[str, str]:
    """Mutant name to what became of it: killed, survived, timeout, no tests, …"""
    lines = python(copy, "-m", "mutmut", "results", "--all", "true").splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if "__mutmut_" in line)


def matches(mutant: str, prefix: str, wanted: tuple[str, ...]) -> bool:
    """Whether a mutant belongs to one of the functions."""
    function = re.sub(r"__mutmut_\d+$", "", mutant.removeprefix(f"{prefix}."))
    return any(re.fullmatch("x.*" + re.escape(pattern).replace(r"\*", ".*"), function) for pattern in wanted)


if __name__ == "__main__":
    sys.exit(main())
