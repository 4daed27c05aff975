"""An answer in a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from segearth.inference.scene_types import SceneResult
from segearth.structures import Segmentation

LISTED = 5  # regions named one by one


def summary_of(answer: Segmentation) -> str:
    """Says how much was found, in how many regions, how sure that is, and where the first regions are.

    Areas and boxes are in pixels. The lines after the first name a region each; of many the first five, which are the
    largest unless the segmenter itself tells regions apart. Words that the model does not know come last.
    """
    sure = f"(present {answer.presence:.2f}, score {answer.score:.2f})"
    unknown = _unknown(answer.unknown_words)
    if not answer.present:
        return "\n".join([f"nothing of the kind {sure}", *unknown])
    regions, pixels = answer.regions, int(answer.mask.sum())
    share = f"{100 * pixels / answer.mask.size:.1f} % of the picture"
    lines = [f"{_counted(len(regions), 'region')}, {_counted(pixels, 'pixel')}, {share} {sure}"]
    for region in regions[:LISTED]:
        x0, y0, x1, y1 = region.box
        lines.append(f"  {_counted(region.area, 'pixel')} in columns {x0} to {x1 - 1}, rows {y0} to {y1 - 1}")
    if len(regions) > LISTED:
        lines.append(f"  and {len(regions) - LISTED} more")
    return "\n".join(lines + unknown)


def summary_of_scene(result: SceneResult) -> str:
    """Says for each question of a scene how much was found, and how it was gone about."""
    lines = []
    for number, answer in enumerate(result.answers, 1):
        name = answer.question if len(result.answers) == 1 else f"band {number}, {answer.question}"
        if answer.present:
            area = f"{answer.area:,.0f} m2" if answer.area_unit == "m2" else _counted(answer.pixels, "pixel")
            found = f"{_counted(answer.regions, 'region')}, {area}"
        else:
            found = "nothing of the kind"
        lines += [f"{name}: {found} (present {answer.presence:.2f}, score {answer.score:.2f})", f"  {answer.reason}"]
        lines += _unknown(answer.unknown_words)
    lines.append(f"written: {result.output}" + (f", {result.vector}" if result.vector is not None else ""))
    return "\n".join(lines)


def _unknown(words: Sequence[str]) -> list[str]:
    return [f"  words that it does not know: {', '.join(words)}"] if words else []


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
