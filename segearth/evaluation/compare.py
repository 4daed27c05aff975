"""Compares two runs question by question, to tell whether one is really better than the other.

That the intervals of two runs overlap says little: they are wide mostly because some images are harder than others, and
both runs were scored on the same images. Here the difference is taken for each question first, and the interval is that
of the mean difference (a paired bootstrap over images), in which how hard an image is does not count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from segearth.errors import DatasetError
from segearth.evaluation.records import Record
from segearth.evaluation.scorers import SCORERS, get_scorer
from segearth.metrics.bootstrap import bootstrap_interval

SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more one run scores than another on a group of questions.

    Attributes:
        group: Which questions, such as ``"all"``, ``"present"`` or ``"kind position"``.
        samples: How many questions.
        first: Mean score of the first run, in [0, 1]: its gIoU, where the answers are masks.
        second: The same of the second run.
        interval: 95 % interval of ``first - second``, from a bootstrap over images.
    """

    group: str
    samples: int
    first: float
    second: float
    interval: tuple[float, float]

    @property
    def gain(self) -> float:
        """``first - second``."""
        return self.first - self.second

    @property
    def verdict(self) -> str:
        """``"first"`` or ``"second"``, whichever is better, or ``"unclear"`` where the interval holds zero."""
        low, high = self.interval
        return "first" if low > 0 else "second" if high < 0 else "unclear"


def read_records(run: str | Path) -> list[Record]:
    """Reads the samples of an evaluation.

    Args:
        run: A report's folder (it holds ``samples.jsonl``), or a training run's, whose only report is taken.

    Raises:
        DatasetError: There is no report, there are several, or a line is not one of a report.
    """
    folder = Path(run)
    inside = sorted(path.parent for path in folder.glob("*/" + SAMPLES_FILE))
    found = [folder] if (folder / SAMPLES_FILE).is_file() else inside
    if len(found) != 1:
        names_found = ", ".join(report.name for report in found)
        what = f"holds {len(found)} reports ({names_found})" if found else f"holds no {SAMPLES_FILE}"
        raise DatasetError(f"{folder} {what}; give the folder of one report, as `segearth eval` names it")
    records = []
    for number, line in enumerate((found[0] / SAMPLES_FILE).read_text(encoding="utf-8").splitlines(), 1):
        try:
            records.append(_record_of(json.loads(line)))
        except (ValueError, TypeError, AttributeError) as error:
            raise DatasetError(f"{found[0] / SAMPLES_FILE}, line {number}: not a sample ({error})") from error
    if not records:
        raise DatasetError(f"{found[0] / SAMPLES_FILE} is empty; score the run again with `segearth eval`")
    return records


def compare_records(
    first: Sequence[Record], second: Sequence[Record], seed: int = 0, other_words: bool = False
) -> list[Difference]:
    """Compares two runs question by question.

    Args:
        first: Records of one run.
        second: Records of another, of the same questions in any order.
        seed: Decides the bootstrap.
        other_words: Whether the questions may be worded differently in the two; ids and targets must be the same.

    Returns:
        A row for all questions, then for those with something to find and those without, for each kind and for each
        source, where there are several. Where the answers are of several sorts, such as masks and boxes, each sort has
        rows of its own, since a mean over scores of different scorers would mean nothing.

    Raises:
        DatasetError: The runs were not scored on the same questions with the same targets.
    """
    pairs = _paired(first, second, other_words)
    scored = {
        name: own for name, scorer in SCORERS.items() if (own := [p for p in pairs if p[0].task in scorer.tasks])
    }
    if len(scored) == 1:
        return _rows(pairs, seed)
    return [replace(row, group=f"{name}: {row.group}") for name, own in scored.items() for row in _rows(own, seed)]


def _rows(pairs: Sequence[tuple[Record, Record]], seed: int) -> list[Difference]:
    rows = [_difference("all", pairs, seed)]
    labels: list[Callable[[Record], str]] = [
        lambda r: getattr(r, "target", ""), lambda r: f"kind {r.kind or '(none)'}",
        lambda r: f"source {r.source or '(none)'}",
    ]  # fmt: skip
    for label in labels:
        groups: dict[str, list[tuple[Record, Record]]] = {}
        for pair in pairs:
            groups.setdefault(label(pair[0]), []).append(pair)
        if len(groups) > 1:
            rows += [_difference(name, groups[name], seed) for name in sorted(groups)]
    return rows


def as_markdown(rows: Sequence[Difference], first: str, second: str) -> str:
    """Returns the rows as a table in points, of gIoU where answers are masks; a last line says what follows from it."""
    lines = [
        f"| questions | samples | {first} | {second} | difference | 95 % interval | better |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    names = {"first": first, "second": second, "unclear": "unclear"}
    for row in rows:
        low, high = (100 * end for end in row.interval)
        lines.append(
            f"| {row.group} | {row.samples} | {100 * row.first:.1f} | {100 * row.second:.1f} | {100 * row.gain:+.1f} | "
            f"{low:+.1f} to {high:+.1f} | {names[row.verdict]} |"
        )
    sentences = []
    for row in rows:
        if not row.group.endswith("all"):
            continue
        about = row.group.removesuffix("all")  # empty, or "boxes: "
        if row.verdict == "unclear":
            sentence = "The interval holds zero: these questions do not show that either run is better."
        else:
            sentence = f"{names[row.verdict]} is better: the interval of the difference does not reach zero."
        sentences.append(about + sentence)
    return "\n".join([*lines, "", *sentences])


def _record_of(line: Mapping[str, Any]) -> Record:
    """Makes a record of a line of ``samples.jsonl``. Early reports name no scorer: there was only one, for masks."""
    record = get_scorer(line.get("scorer", "segmentation")).record
    names = {field.name for field in fields(record)}
    return record(**{key: value for key, value in line.items() if key in names})


def _paired(
    first: Sequence[Record], second: Sequence[Record], other_words: bool
) -> list[tuple[Record, Record]]:
    by_id = {record.id: record for record in second}
    if {record.id for record in first} != by_id.keys():
        alone = sorted({record.id for record in first} ^ by_id.keys())
        raise DatasetError(
            f"the runs were scored on different questions ({len(alone)} are in one alone, such as {alone[0]!r}); score "
            "both on the same split with the same protocol"
        )
    pairs = [(record, by_id[record.id]) for record in first]
    for one, other in pairs:
        if one.truth != other.truth or not (other_words or one.question == other.question):
            raise DatasetError(
                f"question {one.id!r} has another text or target in the two runs; score both again with one version, "
                "or, to compare two wordings of the same questions, add --other-words"
            )
    return pairs


def _difference(group: str, pairs: Sequence[tuple[Record, Record]], seed: int) -> Difference:
    gains = [one.value - other.value for one, other in pairs]
    return Difference(
        group,
        len(pairs),
        sum(one.value for one, _ in pairs) / len(pairs),
        sum(other.value for _, other in pairs) / len(pairs),
        bootstrap_interval(gains, [one.image_id for one, _ in pairs], seed=seed),
    )
