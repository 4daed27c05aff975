"""Tiny layouts of data sets that are answered in words or boxes, written in the manner of ``dataset_fakes``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from dataset_fakes import write_image
from PIL import Image


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def dior_rsvg(root: Path) -> Path:
    """Image 00002 (level 20) has objects 0 and 1, image 00010 (level 100) object 2; train has 0 and 2, test 1."""
    objects = {"00002": [("ship", (1, 2, 5, 6), "the ship"), ("dam", (0, 0, 9, 3), "a  dam\n to test")],
               "00010": [("dam", (3, 1, 8, 7), "the dam")]}  # fmt: skip
    for name, rows in objects.items():
        write_image(root / f"JPEGImages/{name}.jpg", 10 * int(name))
        found = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            f"</bndbox><description>{text}</description></object>"
            for kind, (x0, y0, x1, y1), text in rows
        )
        path = root / f"Annotations/{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation><filename>{name}.jpg</filename>{found}</annotation>", encoding="utf-8")
    for split, numbers in {"train": "0\n2\n", "val": "2\n", "test": "1\n"}.items():
        (root / f"{split}.txt").write_text(numbers)
    return root


def vrsbench(root: Path) -> Path:
    """Two images a split, a.png and b.png, of 50 x 100 pixels."""
    for folder, level in (("Images_train", 10), ("Images_val", 20)):
        for name in ("a", "b"):
            write_image(root / folder / f"{name}.png", level, (50, 100))
    asked = [
        ("a", "<image>\n[caption] Could you describe the contents of this image for me?", "A port."),
        ("a", "<image>\n[refer] could you tell me the location for <p>the left ship</p>?", "{<10><20><30><40>}"),
        ("b", "<image>\n[vqa] How many ships?. A short answer to the question is", "2"),
    ]
    write_json(root / "VRSBench_train.json", [
        {"id": str(n), "image": f"{name}.png", "conversations": [
            {"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        for n, (name, question, answer) in enumerate(asked)
    ])  # fmt: skip
    for task, rows in {
        "Cap": [("b", "Describe the image in detail", "A field.", {"type": "caption"})],
        "referring": [("a", "The large ship", "{<50><0><100><154>}", {"type": "ref", "unique": True})],
        "vqa": [("a", "Is it urban?", "yes", {"type": "rural or urban"}), ("b", "How many?", 3, {"type": "quantity"})],
    }.items():
        write_json(root / f"VRSBench_EVAL_{task}.json", [
            {"image_id": f"{name}.png", "question": question, "ground_truth": right, "question_id": n, **more}
            for n, (name, question, right, more) in enumerate(rows)
        ])  # fmt: skip
    return root


def rsvqa(root: Path, prefix: str = "LR", folder: str = "Images_LR", split: str = "train") -> Path:
    """Image 4 has questions 7 and 9, image 6 question 8; ids disagree with every position, row 5 is not active."""
    write_image(root / folder / "4.tif", 40)
    write_image(root / folder / "6.tif", 60)
    rows = {
        "images": [{"id": 6, "active": True}, {"id": 5, "active": False}, {"id": 4, "active": True}],
        "questions": [
            {"id": 9, "img_id": 4, "type": "count", "question": "How many roads?", "answers_ids": [21], "active": True},
            {"id": 5, "active": False},
            {"id": 8, "img_id": 6, "type": "comp", "question": "More roads?", "answers_ids": [20], "active": True},
            {"id": 7, "img_id": 4, "type": "presence", "question": "A road?", "answers_ids": [22], "active": True},
        ],
        "answers": [
            {"id": 22, "answer": "yes", "active": True}, {"id": 5, "active": False},
            {"id": 20, "answer": "no", "active": True}, {"id": 21, "answer": "0", "active": True},
        ],
    }  # fmt: skip
    for name, content in rows.items():
        write_json(root / f"{prefix}_split_{split}_{name}.json", {name: content})
    return root


def rsicd(root: Path) -> Path:
    """Two training images and one to test, in another order than their files."""
    names = {"pond_2.jpg": "train", "airport_1.jpg": "test", "00003.jpg": "train"}
    entries = []
    for level, (name, split) in enumerate(names.items(), start=1):
        write_image(root / "RSICD_images" / name, 10 * level)
        said = [{"raw": f"{name} said {k}. ", "tokens": []} for k in range(2)]
        entries.append({"filename": name, "split": split, "imgid": level, "sentences": said})
    write_json(root / "dataset_rsicd.json", {"images": entries, "dataset": "rsicd"})
    return root


def levir_cc(root: Path) -> Path:
    """Two training pairs, levels 10 and 20 before, 11 and 21 after, and a pair to test."""
    entries = []
    for number, split in ((1, "train"), (2, "train"), (3, "test")):
        name = f"{split}_{number}.png"
        write_image(root / "images" / split / "A" / name, 10 * number)
        write_image(root / "images" / split / "B" / name, 10 * number + 1)
        said = [{"raw": f" a road {number} appears . "}, {"raw": f" there is a road {number} . "}]
        facts = {"filename": name, "filepath": split, "split": split, "changeflag": number % 2}
        entries.append({**facts, "sentences": said})
    write_json(root / "LevirCCcaptions.json", {"images": entries})
    return root


EVERY_TASK = (
    "caption", "grounding", "detection", "grounding_description", "region_caption", "vqa", "classification",
    "multi_label", "change_caption", "temporal_classification",
)  # fmt: skip


def conversations(root: Path, split: str = "train", count: int = 2, tasks: tuple[str, ...] = EVERY_TASK) -> Path:
    """``count`` images and pairs of 64 x 64 pixels, each asked once for each task, in EarthDial's words."""
    entries = []
    for i in range(count):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[16:32, 8 * i : 8 * i + 16] = 255  # in hundredths: rows 25 to 50, columns 12.5 i to 12.5 i + 25
        box = f"[[{12.5 * i}, 25, {12.5 * i + 25}, 50, 0]]"
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / f"images/{split}{i}.png")
        Image.fromarray(picture // 2).save(root / f"images/{split}{i}_before.png")
        one, pair = f"images/{split}{i}.png", [f"images/{split}{i}_before.png", f"images/{split}{i}.png"]
        label = ("harbor", "dense residential")[i % 2]
        classes = "Classes: harbor, residential, dense residential."
        rows = {
            "caption": (one, f"[caption] <image> \\n Describe picture {i}.", f"a white block {i}"),
            "grounding": (one, f"[refer] <image> \\n Where is <ref>block {i}</ref>?", box),
            "detection": (one, f"[grounding] <image> \\n Locate all blocks {i}.", f"{box}[[75, 75, 87.5, 100, 0]]"),
            "grounding_description": (
                one, f"[grounding] <image> \\n Describe picture {i}. Detect objects location.",
                f"there is <ref>1 large block number {i} on a dark ground</ref> <box>[{box}]</box>.",
            ),
            "region_caption": (one, f"[identify] <image> \\n what is here <box>{box}</box>", f"the block {i}"),
            "vqa": (one, f"<image>\n Is there a block {i}?", ("yes", "no")[i % 2]),
            "classification": (one, f"[hr_rgb_0.5] <image> \\n Classify picture {i}. {classes}", label),
            "multi_label": (
                one, f"[classify] <image> \\n List picture {i}. {classes} Answer with a list of classes.",
                f"{label}, residential",
            ),
            "change_caption": (pair, f"[changedet] <image> <image> \\n What has changed in {i}?", f"block {i} is lit"),
            "temporal_classification": (
                pair, f"[changedet] <image> <image> \\n Which disaster in {i}? Options: fire, flood.",
                ("fire", "flood")[i % 2],
            ),
        }  # fmt: skip
        for task in tasks:
            image, question, answer = rows[task]
            said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            entries.append({"id": f"{task}_{i}", "image": image, "conversations": said})
    write_json(root / f"{split}.json", entries)
    return root
