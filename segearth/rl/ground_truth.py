"""What a completion is held against, as one JSON text, which a data set for training carries whatever the engine.

================  ===================================================================================================
``kind``          further keys
================  ===================================================================================================
``"regions"``     ``mask``: COCO run lengths; where known, ``regions``: run lengths of each thing; ``boxes``
``"boxes"``       ``boxes``: lists of four or five numbers, see :class:`segearth.structures.Boxes`
``"text"``        ``references``
``"choices"``     ``options``, ``right``
``"unknown"``     none: only the form of an answer can be scored
================  ===================================================================================================

Each may have ``wording``, the right answer in words beside boxes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from segearth.errors import RewardError, SegEarthError
from segearth.structures import Boxes, Choices, Region, Regions, Target, Text
from segearth.utils.coco_masks import decode_segmentation, encode_mask
from segearth.utils.text import first_line


def ground_truth_text(target: Target | None, wording: str | None = None) -> str:
    """Writes a target as JSON.

    Args:
        target: In pixels of the image.
        wording: See :class:`segearth.rl.rewards.terms.RewardRow`.
    """
    facts = _facts_of(target)
    if wording is not None:
        facts["wording"] = wording
    return json.dumps(facts, ensure_ascii=False)


def read_ground_truth(text: str) -> tuple[Target | None, str | None]:
    """Reads what :func:`ground_truth_text` wrote.

    Returns:
        The target and the wording.

    Raises:
        RewardError: It is no such text.
    """
    try:
        facts = json.loads(text)
        wording = facts.get("wording")
        return _target_of(facts), None if wording is None else str(wording)
    except (ValueError, TypeError, KeyError, AttributeError, SegEarthError) as error:
        raise RewardError(
            f"the ground truth cannot be read ({type(error).__name__}: {first_line(error)}); write it with "
            "segearth.rl.ground_truth.ground_truth_text"
        ) from error


def _facts_of(target: Target | None) -> dict[str, Any]:
    if isinstance(target, Boxes):
        return {"kind": "boxes", "boxes": target.values}
    if isinstance(target, Text):
        return {"kind": "text", "references": target.references}
    if isinstance(target, Choices):
        return {"kind": "choices", "options": target.options, "right": target.right}
    if target is None:
        return {"kind": "unknown"}
    facts: dict[str, Any] = {"kind": "regions", "mask": encode_mask(target.mask.astype(bool))}
    if target.regions is not None:
        facts["regions"] = [encode_mask(region.in_image(*target.mask.shape)) for region in target.regions]
    if target.boxes is not None:
        facts["boxes"] = target.boxes
    return facts


def _target_of(facts: dict[str, Any]) -> Target | None:
    kind = facts["kind"]
    if kind == "boxes":
        return Boxes(_boxes(facts["boxes"]))
    if kind == "text":
        return Text(tuple(facts["references"]))
    if kind == "choices":
        return Choices(tuple(facts["options"]), tuple(facts["right"]))
    if kind == "unknown":
        return None
    if kind != "regions":
        raise RewardError(f"kind is {kind!r}")
    regions = facts.get("regions")
    boxes = facts.get("boxes")
    return Regions(
        _mask(facts["mask"]),
        None if regions is None else tuple(Region.cut_from(_mask(runs)) for runs in regions),
        None if boxes is None else _boxes(boxes),
    )


def _boxes(rows: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in rows)


def _mask(runs: dict[str, Any]) -> np.ndarray:
    height, width = runs["size"]
    return decode_segmentation(runs, height, width)
