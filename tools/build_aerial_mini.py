"""Builds the embedded data set ``aerial_mini``: python tools/build_aerial_mini.py SOURCES [--out DIR] [--seed N].

It is made of seven folders of openly licensed images.
A source folder holds ``annotations.json`` (COCO, with ``split``, ``group`` and ``gsd_m`` per image) and ``images/``.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject, transform_image
from segearth.data.questions.builder import BuilderSettings, Expression, ExpressionBuilder
from segearth.data.questions.dense import every_expression, minimal_pairs
from segearth.data.questions.held_out import held_out_text, is_held_out
from segearth.data.questions.table import load_table
from segearth.data.readers.aerial import FILE_NAMES, PACKAGED, SPLITS, UNSEEN_SPLITS, AerialMini
from segearth.errors import DatasetError
from segearth.utils.coco_masks import encode_mask
from segearth.utils.files import atomic_path, read_image, write_text

logger = logging.getLogger(__name__)

JPEG_QUALITY = 85
EDGE_TOLERANCE = 3  # pixels; an outline this close to a chip's edge goes on in the next chip
PAINT_MARGIN = 5  # pixels around a building that is painted over, for its eaves and drawing errors
SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class SourceFacts:
    """What was found out about a source by reading its description and looking at all of its pictures.

    Attributes:
        known_absent: Classes it does not annotate and none of whose objects was seen in any of its images.
        incomplete: Annotated classes of which it misses some.
        possible: Unannotated classes that do occur.
        stuff: Classes whose pieces are not single objects, whatever the source says.
        long_side: Longer images are scaled down to this many pixels.
        left_out: Images that show ground also shown by an image of a more held-out split, or whose mask is damaged.
    """

    known_absent: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    long_side: int = 512
    left_out: tuple[str, ...] = ()


SOURCES: dict[str, SourceFacts] = {
    "amazon_forest": SourceFacts(("airplane", "ship", "stadium", "swimming pool", "garbage bin", "window", "chimney")),
    "gsi_road": SourceFacts(("airplane", "stadium")),
    "gsi_solar": SourceFacts(
        ("airplane", "ship", "stadium", "wind turbine"),
        stuff=("solar panel",),  # sun glint splits some arrays into several pieces, so they cannot be counted
        left_out=(
            "gsi_solar_0304.jpg",  # overlaps gsi_solar_0302 (val)
            "gsi_solar_0113.jpg",  # most of its panels are missing from the mask, lost to sun glint
            "gsi_solar_0374.jpg",  # likewise
        ),
    ),
    "harvey_uav": SourceFacts(
        ("airplane", "ship", "stadium", "solar panel", "wind turbine", "tennis court"),
        incomplete=("vehicle", "window", "chimney", "street light", "satellite antenna", "garbage bin", "power line"),
        left_out=(
            # 6701's upper fifth is in 6704 (test); 6965's and 6966's lower parts are in 6963 (val).
            *(f"harvey_6701_{view}.jpg" for view in ("full", "q00", "q01")),
            *(f"harvey_{photo}_{view}.jpg" for photo in (6965, 6966) for view in ("full", "q10", "q11")),
        ),
    ),
    "hot_banepa_roofs": SourceFacts(("airplane", "ship", "stadium", "wind turbine", "swimming pool")),
    "hot_oam_buildings": SourceFacts(
        ("airplane", "ship", "stadium", "wind turbine", "swimming pool"),
        possible=("under construction",),  # walls without a roof are drawn as buildings
    ),
    "sen2ships": SourceFacts(("garbage bin", "window", "chimney", "street light", "satellite antenna"), long_side=640),
}

# Kinds in the fixed questions: shares that give about 35 % class, 25 % reasoning, 27 % other referring, 13 % absent
# after what the images have nothing for is left out.
FIXED = BuilderSettings(
    max_questions=8,
    mix={
        "class": 0.30,
        "reasoning": 0.17,
        "position": 0.14,
        "count": 0.06,
        "size": 0.10,
        "neighbour": 0.10,
        "attribute": 0.08,
        "absent": 0.075,
    },
    paraphrases=3,
    held_out=True,
)

# Kinds in the questions in unseen words: each meaning once, and more of what is told by place, size and neighbour.
UNSEEN = BuilderSettings(
    max_questions=6,
    mix={
        "class": 0.22,
        "reasoning": 0.22,
        "position": 0.18,
        "count": 0.05,
        "size": 0.09,
        "neighbour": 0.09,
        "attribute": 0.05,
        "absent": 0.10,
    },
    paraphrases=1,
)
COMBINATION = "combination"  # the kind of a question about an attribute with a place or size it never came with


@dataclass
class _Entry:
    """One source image on its way into the data set."""

    source: str
    record: dict[str, Any]
    annotated: AnnotatedImage
    path: Path

    @property
    def rank(self) -> int:
        return SPLIT_ORDER[self.record["split"]]


def main() -> None:
    """Builds, then prints the kinds of the fixed questions per split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", help="folder that holds the source folders")
    parser.add_argument("--out", default=PACKAGED, help="folder to write (default: the package's own)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the fixed questions")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(arguments.sources, arguments.out, arguments.seed)
    for split in SPLITS:
        data = AerialMini(arguments.out, split)
        print(f"{split}: {len(data)} images")
        for kind, number, share in mix_table(data):
            print(f"  {kind:10} {number:5} {share:6.1%}")


def build(sources: str | Path, out: str | Path, seed: int = 0) -> None:
    """Reads every source and writes images, annotations and fixed questions.

    Args:
        sources: Folder with one folder per key of :data:`SOURCES`.
        out: Folder to write; files of the same name are replaced.
        seed: Of the fixed questions.

    Raises:
        DatasetError: A source is missing, or a group of images is in two splits.
    """
    out = Path(out)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, dict[str, Any]] = {}
    facts: dict[str, dict[str, list[str]]] = {}
    for name, source in SOURCES.items():
        entries, vocabulary = _read_source(Path(sources) / name, name, source, categories)
        facts[name] = {
            "vocabulary": vocabulary,
            "known_absent": list(source.known_absent),
            "incomplete": list(source.incomplete),
            "possible": list(source.possible),
        }
        painted = 0
        for entry in entries:
            shared = _shared_buildings(entry, entries)
            painted += len(shared)
            images.append(_store(entry, shared, out, len(images) + 1, categories, annotations))
        logger.info("%s: %d images, %d buildings painted over", name, len(entries), painted)
    tree = {
        "info": {"description": "aerial_mini: seven openly licensed aerial sources, see LICENSES.md", "version": "1"},
        "categories": list(categories.values()),
        "sources": facts,
        "images": images,
        "annotations": annotations,
    }
    write_text(out / FILE_NAMES.annotations, json.dumps(tree, separators=(",", ":")))
    for split in SPLITS:
        write_text(out / FILE_NAMES.questions.format(split=split), _fixed_questions(out, split, seed))
        write_text(out / FILE_NAMES.dense.format(split=split), dense_questions(out, split, seed))
    for split in UNSEEN_SPLITS:
        write_text(out / FILE_NAMES.unseen.format(split=split), unseen_questions(out, split, seed))


def _read_source(
    folder: Path, name: str, facts: SourceFacts, categories: dict[str, dict[str, Any]]
) -> tuple[list[_Entry], list[str]]:
    path = folder / "annotations.json"
    if not path.is_file():
        raise DatasetError(f"{path} is missing; give the folder that holds {', '.join(SOURCES)}")
    tree = json.loads(path.read_text(encoding="utf-8"))
    own = {c["id"]: {**c, "isthing": int(c["isthing"] and c["name"] not in facts.stuff)} for c in tree["categories"]}
    for category in own.values():
        if category["name"] not in categories:
            number = len(categories) + 1
            kept = {key: category[key] for key in ("name", "supercategory", "isthing")}
            categories[category["name"]] = {"id": number, **kept}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in tree["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    split_of: dict[str, str] = {}
    entries = []
    for record in sorted(tree["images"], key=lambda r: r["file_name"]):
        if split_of.setdefault(record["group"], record["split"]) != record["split"]:
            raise DatasetError(f"{name}: group {record['group']} is in two splits")
        if record["file_name"] not in facts.left_out:
            annotated = AnnotatedImage.from_coco(record, by_image.get(record["id"], ()), own)
            entries.append(_Entry(name, record, annotated, folder / "images" / record["file_name"]))
    return entries, sorted(category["name"] for category in own.values())


def _shared_buildings(entry: _Entry, entries: list[_Entry]) -> set[int]:
    """Ids of the objects of ``entry`` that an image of a more held-out split shows, too."""
    if "bounds_lonlat" not in entry.record:
        return set()
    higher = [other for other in entries if other.rank > entry.rank]
    ids = {
        item.attributes["osm_id"] for other in higher for item in other.annotated.objects if "osm_id" in item.attributes
    }
    shared = {item.id for item in entry.annotated.objects if item.attributes.get("osm_id") in ids}
    for other in higher:
        shared |= {item.id for item in entry.annotated.objects if reaches(entry.record, item.box, other.record)}
    return shared


def reaches(record: Mapping[str, Any], box: tuple[int, int, int, int], other: Mapping[str, Any]) -> bool:
    """Whether a pixel box of one georeferenced chip comes within :data:`EDGE_TOLERANCE` pixels of another chip.

    Args:
        record: The chip's entry of ``images``, with ``bounds_lonlat`` ``(west, south, east, north)``.
        box: ``(x0, y0, x1, y1)`` in the chip's pixels.
        other: The other chip's entry.
    """
    west, south, east, north = record["bounds_lonlat"]
    dx, dy = (east - west) / record["width"], (north - south) / record["height"]
    w2, s2, e2, n2 = other["bounds_lonlat"]
    near_x, near_y = EDGE_TOLERANCE * dx, EDGE_TOLERANCE * dy
    x0, y0, x1, y1 = box
    return (
        west + x1 * dx > w2 - near_x
        and west + x0 * dx < e2 + near_x
        and north - y1 * dy < n2 + near_y
        and north - y0 * dy > s2 - near_y
    )


def _store(
    entry: _Entry,
    shared: set[int],
    out: Path,
    image_id: int,
    categories: Mapping[str, Mapping[str, Any]],
    annotations: list[dict[str, Any]],
) -> dict[str, Any]:
    annotated = replace(entry.annotated, objects=[item for item in entry.annotated.objects if item.id not in shared])
    image = _painted(read_image(entry.path), entry.annotated, annotated, shared)
    scale = min(1.0, SOURCES[entry.source].long_side / max(annotated.width, annotated.height))
    size = (round(annotated.height * scale), round(annotated.width * scale))
    frame = (0, 0, annotated.width, annotated.height)
    small = annotated.transform(frame, size)
    file_name = f"{FILE_NAMES.images}/{entry.source}/{entry.record['file_name']}"
    with atomic_path(out / file_name) as temporary:
        bgr = cv2.cvtColor(transform_image(image, frame, size), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(temporary), bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    for item in small.objects:
        annotations.append(_annotation(item, small, len(annotations) + 1, image_id, categories))
    carried = ("split", "group", "site", "bounds_lonlat")
    kept: dict[str, Any] = {key: entry.record[key] for key in carried if key in entry.record}
    gsd = None if small.gsd_m is None else round(small.gsd_m, 4)
    return {
        "id": image_id,
        "file_name": file_name,
        "width": size[1],
        "height": size[0],
        "source": entry.source,
        **kept,
        "gsd_m": gsd,
    }


def _painted(image: np.ndarray, before: AnnotatedImage, after: AnnotatedImage, shared: set[int]) -> np.ndarray:
    if not shared:
        return image
    kernel = np.ones((2 * PAINT_MARGIN + 1,) * 2, np.uint8)
    hidden = before.union_mask(shared)
    grown = cv2.dilate(hidden.astype(np.uint8), kernel).astype(bool)
    grown &= hidden | ~after.union_mask(item.id for item in after.objects)
    out = image.copy()
    out[grown] = image.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    return out


def _annotation(
    item: AnnotatedObject,
    annotated: AnnotatedImage,
    number: int,
    image_id: int,
    categories: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    x0, y0, x1, y1 = item.box
    out = {
        "id": number,
        "image_id": image_id,
        "category_id": categories[item.category]["id"],
        "segmentation": encode_mask(annotated.union_mask([item.id])),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": item.area,
        "iscrowd": 0,
    }
    return {**out, "attributes": dict(item.attributes)} if item.attributes else out


def _fixed_questions(out: Path, split: str, seed: int) -> str:
    builder = ExpressionBuilder(settings=FIXED)
    data = AerialMini(out, split, questions="none")
    lines = []
    for index, record in enumerate(data.records):
        rng = np.random.default_rng([seed, record["id"]])
        found = builder.expressions(data.annotated(index), rng)
        lines += [_line(each, record["id"], str(number)) for number, each in enumerate(found)]
    return _as_jsonl(lines)


def dense_questions(out: str | Path | None, split: str, seed: int = 0) -> str:
    """Returns the lines of a split's dense questions: every claim that holds, with the pairs that differ in one word.

    Args:
        out: Folder of the data set, annotations included; ``None``: the package's own.
        split: One of :data:`~segearth.data.readers.aerial.SPLITS`.
        seed: Decides the wordings.
    """
    data, table = AerialMini(out, split, questions="none"), load_table()
    lines = []
    for index, record in enumerate(data.records):
        found = every_expression(data.annotated(index), table, np.random.default_rng([seed, 1, record["id"]]))
        asked = [_line(each, record["id"], f"dense-{number}") for number, each in enumerate(found)]
        for number, (what, first, second) in enumerate(minimal_pairs(found)):
            for place in (first, second):
                asked[place].setdefault("pairs", []).append(f"{what} {number}")
        lines += asked
    return _as_jsonl(lines)


def unseen_questions(out: str | Path | None, split: str, seed: int = 0) -> str:
    """Returns the lines of a split's questions in words that training never draws.

    Each line has the same question in words that training does draw beside it, under ``"seen"``: it asks for the same
    objects, so that the difference of the two scores is the words' alone.

    Args:
        out: Folder of the data set, annotations included; ``None``: the package's own.
        split: One of :data:`~segearth.data.readers.aerial.UNSEEN_SPLITS`.
        seed: Decides what is asked and how it is worded.
    """
    data, table = AerialMini(out, split, questions="none"), load_table()
    builder = ExpressionBuilder(table, UNSEEN)
    lines = []
    for index, record in enumerate(data.records):
        annotated, rng = data.annotated(index), np.random.default_rng([seed, 2, record["id"]])
        found = builder.expressions(annotated, rng)
        attributes = every_expression(annotated, table, rng, kinds=("attribute",))
        found += [each._replace(kind=COMBINATION) for each in attributes if is_held_out(each.claim, table)]
        for number, each in enumerate(found):
            line = _line(each, record["id"], f"unseen-{number}")
            text = held_out_text(each.claim, each.referents, table, rng)
            lines.append({**line, "question": text, "seen": each.text})
    return _as_jsonl(lines)


def _line(found: Expression, image_id: int, suffix: str) -> dict[str, Any]:
    line = {
        "image_id": image_id,
        "id": f"{image_id}-{suffix}",
        "question": found.text,
        "kind": found.kind,
        "task": found.task,
        "answer": found.answer,
        "object_ids": list(found.referents.ids),
    }
    return line if found.referents.within is None else {**line, "within": list(found.referents.within)}


def _as_jsonl(lines: Sequence[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(line) for line in lines) + "\n"


def mix_table(data: AerialMini) -> Iterator[tuple[str, int, float]]:
    """Yields ``(kind, number, share)`` of a split's fixed questions, most frequent first."""
    kinds = [line["kind"] for lines in data.questions.values() for line in lines]
    for kind in sorted(set(kinds), key=lambda k: (-kinds.count(k), k)):
        yield kind, kinds.count(kind), kinds.count(kind) / len(kinds)


if __name__ == "__main__":
    main()
