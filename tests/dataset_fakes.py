"""Writes each data set's layout, tiny, into a folder. Every id has a grey level of its own, so pairs can be checked."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, level: int, size: tuple[int, int] = (8, 10)) -> Path:
    """A PNG or TIFF of one grey level, ``size`` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)
    return path


def write_mask(path: Path, columns: int, size: tuple[int, int] = (8, 10), value: int = 255) -> Path:
    """A mask whose first ``columns`` columns are target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(size, np.uint8)
    array[:, :columns] = value
    Image.fromarray(array).save(path)
    return path


def corrupt(path: Path) -> None:
    """Cuts a file in half, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def earthreason(root: Path, ids: dict[str, int], split: str = "train") -> Path:
    """``ids`` maps an id to k: grey level 10k, k target columns, k questions, and one answer less."""
    for image_id, k in ids.items():
        write_image(root / split / "images" / f"{image_id}.png", 10 * k)
        write_mask(root / split / "labels" / f"{image_id}.png", k)
        path = root / split / "QAs" / f"{image_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"questions": [f"q{k}.{n}" for n in range(k)], "answer": [f"a{k}.{n}" for n in range(k - 1)]}
        path.write_text(json.dumps(content), encoding="utf-8")
    return root


def phrases(
    root: Path, ids: dict[str, int], folders: tuple[str, str] = ("images", "masks"), split: str = "train"
) -> Path:
    """``ids`` maps an id to k: grey level 10k, k target columns, the phrases "phrase k a" and "phrase k b"."""
    lines = []
    for image_id, k in ids.items():
        write_image(root / folders[0] / f"{image_id}.tif", 10 * k)
        write_mask(root / folders[1] / f"{image_id}.tif", k)
        lines += [f"{image_id} phrase {k} a", f"{image_id} phrase {k} b"]
    (root / f"output_phrase_{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def square(x: int, y: int, side: int) -> list[int]:
    """A polygon covering ``side`` times ``side`` pixels from (x, y)."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def rrsisd(root: Path, size: tuple[int, int] = (8, 10), with_val: bool = False) -> Path:
    """Image 7 with references 31 (two sentences) and 32, image 3 with 33; ids disagree with every position."""
    write_image(root / "images/rrsisd/JPEGImages/00007.png", 70, size)
    write_image(root / "images/rrsisd/JPEGImages/00003.png", 30, size)
    instances = {
        "images": [
            {"id": 7, "file_name": "00007.png", "height": 8, "width": 10},
            {"id": 3, "file_name": "00003.png", "height": 8, "width": 10},
        ],
        "annotations": [
            {"id": 92, "image_id": 7, "segmentation": [square(0, 0, 4), square(2, 2, 4)]},  # 16 + 16 - 4 pixels
            {"id": 93, "image_id": 3, "segmentation": [{"size": [8, 10], "counts": [0, 16, 64]}]},  # two columns
            {"id": 91, "image_id": 7, "segmentation": [square(5, 1, 3)]},
        ],
        "categories": [{"id": 0, "name": "dam"}, {"id": 1, "name": "ship"}],
    }
    refs = [
        _ref(33, 3, 93, 0, ["the dam"], "train"),
        _ref(31, 7, 92, 1, ["the ship", "a grey ship"], "train"),
        _ref(34, 3, 93, 0, ["a dam to test"], "test"),
        _ref(32, 7, 91, 1, ["the small ship"], "train"),
    ]
    if with_val:
        refs.append(_ref(35, 7, 91, 1, ["a ship to choose by"], "val"))
    (root / "rrsisd").mkdir(parents=True, exist_ok=True)
    (root / "rrsisd/instances.json").write_text(json.dumps(instances), encoding="utf-8")
    (root / "rrsisd/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    return root


def _ref(ref_id: int, image_id: int, ann_id: int, category_id: int, texts: list[str], split: str) -> dict[str, object]:
    sentences = [{"tokens": t.split(), "raw": t, "sent_id": ref_id * 10 + k, "sent": t} for k, t in enumerate(texts)]
    numbers = {"ref_id": ref_id, "image_id": image_id, "ann_id": ann_id, "category_id": category_id}
    return {**numbers, "sentences": sentences, "split": split, "file_name": "not_the_image.jpg"}


def jsonl(root: Path, records: list[dict[str, object]], split: str = "train") -> Path:
    """Writes records as lines, with ``images/a.png`` and ``images/b.png`` beside them."""
    write_image(root / "images/a.png", 10)
    write_image(root / "images/b.png", 20)
    write_mask(root / "masks/a_1.png", 3)
    (root / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return root


def coco(root: Path, file_name: str = "annotations_train.json", size: tuple[int, int] = (64, 80)) -> Path:
    """Two images; the first holds three buildings and a pool, the second a pool. Ids disagree with positions."""
    write_image(root / "images/b.png", 20, size)
    write_image(root / "images/a.png", 10, size)
    boxes = [(11, 8, 0, 0, 12), (12, 8, 30, 2, 20), (13, 8, 5, 40, 16), (14, 9, 55, 40, 10)]
    annotations = [
        {"id": i, "image_id": 5, "category_id": c, "segmentation": [square(x, y, side)], "iscrowd": 0}
        for i, c, x, y, side in boxes
    ]
    annotations.append({"id": 15, "image_id": 2, "category_id": 9, "segmentation": [square(40, 20, 24)], "iscrowd": 0})
    content = {
        "images": [
            {"id": 5, "file_name": "b.png", "height": 64, "width": 80},
            {"id": 2, "file_name": "a.png", "height": 64, "width": 80},
        ],
        "annotations": annotations,
        "categories": [{"id": 8, "name": "building"}, {"id": 9, "name": "swimming pool"}],
    }
    (root / file_name).write_text(json.dumps(content), encoding="utf-8")
    return root
