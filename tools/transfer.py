"""Tells whether what was learned on some sources helps with another one: leaves a source out, then learns it.

    python tools/transfer.py                                # every source of aerial_mini: some 25 minutes each; resumes
    python tools/transfer.py --sources gsi_solar,sen2ships --out runs/transfer

For each source an experiment is trained on the others ("before"), and then for a few minutes on that source alone,
once from those weights ("learned") and once from random ones ("nothing"), with the same settings, seed and views.
All are scored on the source's test images. The answer is the paired difference of the last two.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from segearth.data.readers.aerial import AerialMini
from segearth.data.readers.source_files import read_json
from segearth.errors import ConfigError
from segearth.evaluation.compare import compare_records, read_records
from segearth.utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ROOT / "configs/experiment/aerial_mini.yaml"
STEPS = {"before": 450, "learned": 150, "nothing": 150}  # 150 steps: about five minutes on two cores


def main() -> None:
    """Trains, scores and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = sorted(AerialMini(questions="none").sources)
    parser.add_argument("--sources", default=",".join(every), help="those to leave out, each on its own")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/transfer")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every run")
    options = parser.parse_args()
    sources = options.sources.split(",")
    for source in sources:
        if source not in every:
            parser.error(f"no source {source!r}; there are {', '.join(every)}")
    for source in sources:
        folder = options.out.resolve() / source
        others = [name for name in every if name != source]
        start = f"model.pretrained={folder / 'before/model'}"
        _run(folder / "before", source, others, options.set)
        _run(folder / "learned", source, [source], [start, *options.set])
        _run(folder / "nothing", source, [source], options.set)
    table = as_table({source: options.out / source for source in sources})
    write_text(options.out / "table.md", table)
    print(table)


def as_table(folders: dict[str, Path]) -> str:
    """Returns a row for each source left out: points of gIoU, and the difference that learned weights make.

    Args:
        folders: For each source the folder of its runs, ``before``, ``learned`` and ``nothing``, each with its report.
    """
    lines = [
        "| source left out | questions | not yet learned | then learned from the other sources' weights | from nothing "
        "| difference (95 %) |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for source, folder in folders.items():
        reports = {name: folder / name / "test" for name in STEPS}
        shares = [f"{100 * read_json(path / 'report.json')['metrics']['giou']:.1f}" for path in reports.values()]
        row = compare_records(read_records(reports["learned"]), read_records(reports["nothing"]))[0]
        low, high = (f"{100 * bound:+.1f}" for bound in row.interval)
        lines.append(f"| {source} | {row.samples} | {' | '.join(shares)} | {100 * row.gain:+.1f} ({low} to {high}) |")
    return "\n".join(lines) + "\n"


def _run(folder: Path, tested: str, trained: Sequence[str], changes: Sequence[str]) -> None:
    """Trains on some sources, unless that is done, and scores on another."""
    settings = [
        str(EXPERIMENT),
        f"data.train=[{{name: aerial_mini, split: train, options: {{sources: [{', '.join(trained)}]}}}}]",
        "data.val=[]",
        f"data.test=[{{name: aerial_mini, split: test, options: {{sources: [{tested}]}}}}]",
        f"train.max_steps={STEPS[folder.name]}",
        f"train.output_dir={folder}",
        *changes,
    ]
    text = "\n".join(settings)
    told = folder / "settings.txt"
    if told.is_file() and told.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{folder} holds a run with other settings ({told}); give --out another folder")
    if (folder / "test/report.json").is_file():
        return
    write_text(told, text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    scored = ["eval.controls=false", "--out", str(folder / "test")]
    for tool, *arguments in (["train.py", *settings], ["evaluate.py", *settings, *scored]):
        subprocess.run([sys.executable, ROOT / "tools" / tool, *arguments], check=True, env=environment, cwd=ROOT)


if __name__ == "__main__":
    main()
