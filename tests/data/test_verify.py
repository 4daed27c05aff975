from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from answer_fakes import conversations, dior_rsvg, levir_cc, rsicd, rsvqa, vrsbench
from dataset_fakes import coco, corrupt, earthreason, jsonl, phrases, rrsisd, write_image, write_mask

from segearth.data.base import SegmentationDataset
from segearth.data.readers.aerial import PACKAGED
from segearth.data.verify import verify_dataset, verify_split
from segearth.errors import UnknownNameError
from segearth.structures import Boxes, Question, Sample


def test_whole_data_set_is_counted(tmp_path):
    earthreason(tmp_path, {"1": 1, "2": 2, "3": 3})
    write_mask(tmp_path / "train/labels/2.png", 0)
    (report,) = verify_dataset("earthreason", tmp_path, ["train"])
    assert report.ok and (report.images, report.questions, report.answers, report.empty_masks) == (3, 6, 5, 2)
    assert report.kinds == {"absent": 2} and report.smallest == report.largest == (10, 8)
    assert report.lines()[0] == "earthreason train: 3 images of 10x8 to 10x8 pixels"
    assert report.lines()[-1] == "no problems"


def test_all_problems_are_collected(tmp_path):
    earthreason(tmp_path, {str(k): 1 for k in range(1, 8)})
    (tmp_path / "train/labels/2.png").unlink()
    (tmp_path / "train/QAs/3.json").unlink()
    write_mask(tmp_path / "train/labels/4.png", 1, size=(3, 3))
    corrupt(write_image(tmp_path / "train/images/5.png", 5, size=(64, 64)))
    (tmp_path / "train/QAs/6.json").write_text("{")
    (report,) = verify_dataset("earthreason", tmp_path, ["train"])
    assert report.images == 2 and not report.ok
    patterns = [
        "labels/2.png is missing",
        "QAs/3.json is missing",
        "labels/4.png is 3x3",
        "5.png: damaged",
        "6.json: not valid",
    ]
    assert len(report.problems) == len(patterns)
    for pattern, problem in zip(patterns, report.problems, strict=True):
        assert pattern in problem and "\n" not in problem
    assert report.lines(max_problems=2)[-4:-3] == ["5 problems:"] and report.lines(2)[-1] == "  … and 3 more"


def test_split_that_cannot_be_opened_is_a_problem(tmp_path):
    earthreason(tmp_path, {"1": 1}, "train")
    train, val, test = verify_dataset("earthreason", tmp_path)
    assert train.ok and not val.ok and not test.ok
    assert "val/images is missing" in val.problems[0] and "expected:" in val.problems[0]


def test_splits_a_user_does_not_have_are_not_asked_for(tmp_path):
    jsonl(tmp_path, [{"image": "images/a.png", "question": "x", "mask": None}], "val")
    assert [report.split for report in verify_dataset("jsonl", tmp_path)] == ["val"]


WRONG_LINES = [
    ("{'image': 3}", "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ("[1]", "expected an object"),
    ('{"image": 3, "question": "x", "mask": null}', '"image" must be a text'),
    ('{"image": "%s", "question": "x", "mask": null}' % ("n" * 300), "no image file"),
    ('{"image": "images/a.png", "question": "x", "mask": "%s"}' % ("n" * 300), "no mask file"),
    ('{"image": "images/a.png", "question": 3, "mask": null}', '"question" must be a text'),
    ('{"image": "images/a.png", "question": "x", "mask": 3}', '"mask" must be a path'),
]


@pytest.mark.parametrize("good", [0, 1])
def test_every_line_that_is_wrong_is_named(tmp_path, good):
    jsonl(tmp_path, [{"image": "images/a.png", "question": "x", "mask": None}])
    lines = [(tmp_path / "train.jsonl").read_text().strip()] * good + [line for line, _ in WRONG_LINES]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (report,) = verify_dataset("jsonl", tmp_path)
    problems = report.problems if good else report.problems[1:]
    assert len(problems) == len(WRONG_LINES) and report.images == good
    for number, ((_, message), problem) in enumerate(zip(WRONG_LINES, problems, strict=True), start=1 + good):
        assert f"train.jsonl:{number}: {message}" in problem
    if not good:
        assert "holds no usable line (8 wrong)\nexpected:" in report.problems[0]


def test_every_mask_that_is_wrong_is_named_although_they_share_an_image(tmp_path):
    masks = [[[0, 0, 3, float("nan"), 3, 3]], [[1e12, 0, 3, 0, 3, 3]], {"size": [8, 10], "counts": "0"}, [[1, 2]]]
    jsonl(tmp_path, [{"image": "images/a.png", "question": "x", "mask": mask} for mask in masks])
    (report,) = verify_dataset("jsonl", tmp_path)
    assert [problem.split("train.jsonl:")[1][:1] for problem in report.problems] == ["1", "3", "4"]
    assert "finite" in report.problems[0] and "they add up to 0" in report.problems[1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_nothing_usable_still_names_why(tmp_path, split):
    earthreason(tmp_path, {"1": 1, "2": 2}, split)
    for number in "12":
        (tmp_path / f"{split}/labels/{number}.png").unlink()
    (report,) = verify_dataset("earthreason", tmp_path, [split])
    assert "has no complete image (2 wrong)\nexpected:" in report.problems[0]
    assert [f"{number}.png is missing" in report.problems[int(number)] for number in "12"] == [True, True]


ODD = [None, -1, "x", "", [], {}, [1], {"a": 1}, float("nan"), 1e12, float("inf"), 10**400, "\ud800"]
ODD += [[[1e12, 0, 3, 0, 3, 1e300]], [[0, 0, 1, 1]], {"size": [8, 10], "counts": "zz"}]
LINES = [{"image": "images/a.png", "question": "x", "mask": [[0, 0, 3, 0, 3, 3]], "answer": "s", "id": "i"}] * 2


def places(tree, above=()):
    yield above
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from places(tree[key], (*above, key))


def with_something_odd(tree, chance):
    """A copy in which one place, chosen by chance, is missing or holds what does not belong there."""
    *above, last = chance.choice([place for place in places(tree) if place])
    copied = json.loads(json.dumps(tree))
    inner = copied
    for key in above:
        inner = inner[key]
    if chance.random() < 0.2:
        del inner[last]
    else:
        inner[last] = chance.choice(ODD)
    return copied


@pytest.mark.parametrize(
    ("name", "make", "file", "rounds"),
    [
        ("coco", coco, "annotations_train.json", 20),
        ("rrsis_d", rrsisd, "rrsisd/instances.json", 60),
        ("earthreason", lambda root: earthreason(root, {"1": 1}), "train/QAs/1.json", 60),
        ("jsonl", lambda root: jsonl(root, LINES), "train.jsonl", 60),
        ("vrsbench", vrsbench, "VRSBench_train.json", 100),
        ("rsvqa_lr", rsvqa, "LR_split_train_questions.json", 60),
        ("rsvqa_lr", rsvqa, "LR_split_train_answers.json", 60),
        ("rsicd", rsicd, "dataset_rsicd.json", 60),
        ("levir_cc", levir_cc, "LevirCCcaptions.json", 60),
        ("conversations", lambda root: conversations(root, count=1), "train.json", 100),
    ],
)
def test_odd_values_are_problems_never_tracebacks(tmp_path, name, make, file, rounds):
    make(tmp_path)
    path, chance = tmp_path / file, random.Random(0)
    text = path.read_text()
    tree = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    found = 0
    for _ in range(rounds):
        odd = with_something_odd(tree, chance)
        path.write_text("\n".join(map(json.dumps, odd)) if path.suffix == ".jsonl" else json.dumps(odd))
        reports = verify_dataset(name, tmp_path, ["train"])
        found += not reports[0].ok
        assert all("\n" not in problem or "\nexpected:" in problem for problem in reports[0].problems)
    assert found > rounds // 3


def aerial(root):
    shutil.copytree(PACKAGED, root, ignore=shutil.ignore_patterns("images"), dirs_exist_ok=True)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 100_000, b"{'a': 1}"])
@pytest.mark.parametrize(
    ("name", "make", "file"),
    [
        ("coco", coco, "annotations_train.json"),
        ("rrsis_d", rrsisd, "rrsisd/instances.json"),
        ("earthreason", lambda root: earthreason(root, {"1": 1}), "train/QAs/1.json"),
        ("jsonl", lambda root: jsonl(root, LINES), "train.jsonl"),
        ("refsegrs", lambda root: phrases(root, {"1": 1}), "output_phrase_train.txt"),
        ("dior_rsvg", dior_rsvg, "train.txt"),
        ("dior_rsvg", dior_rsvg, "Annotations/00002.xml"),
        ("vrsbench", vrsbench, "VRSBench_train.json"),
        ("rsvqa_lr", rsvqa, "LR_split_train_images.json"),
        ("levir_cc", levir_cc, "LevirCCcaptions.json"),
        ("conversations", conversations, "train.json"),
        ("aerial_mini", aerial, "annotations.json"),
        ("aerial_mini", aerial, "questions_train.jsonl"),
    ],
)
def test_files_that_are_no_text_or_no_json_are_problems(tmp_path, name, make, file, content):
    make(tmp_path)
    assert (tmp_path / file).is_file()
    (tmp_path / file).write_bytes(content)
    (report,) = verify_dataset(name, tmp_path, ["train"])
    assert file.rpartition("/")[2] in report.problems[0]


def test_unknown_name():
    with pytest.raises(UnknownNameError):
        verify_dataset("nothing", ".")


class Odd(SegmentationDataset):
    """A data set of someone's own that keeps none of the promises."""

    name, tree = "odd", "ROOT/"

    def __len__(self):
        return 5

    def __getitem__(self, index):
        image = np.zeros((4, 5, 3), np.uint8)
        if index == 0:
            masks = [np.zeros((5, 4), bool), np.zeros((4, 5), np.uint8), None]
            return Sample("a", image, [Question(t, m, id=t) for t, m in zip(("p", "q", ""), masks, strict=True)])
        if index == 3:
            boxes = Question("x", id="t", target=Boxes(()))
            return Sample("d", image, [Question("\ud800", id="r"), Question("x", answer="\udcff", id="s"), boxes])
        if index == 4:
            return Sample("e", image, [Question("what?", id="u")], before=image[:3])
        return Sample("a", image if index == 1 else image.astype(float), [Question("p", id="p")] if index == 1 else [])


def test_broken_promises_are_found(tmp_path):
    report = verify_split(Odd(tmp_path, "train"))
    assert report.unlabelled == 5 and report.images == 5  # one has boxes, though its task does not take them
    assert "5 without a target" in report.lines()[2]
    assert report.problems == [
        "a: mask of question 'p' is (5, 4), image (4, 5)",
        "a: mask of question 'q' is uint8, expected bool",
        "a: question '' is empty",
        "a: image is float64 (4, 5, 3), expected uint8 (H, W, 3)",
        "a: no question",
        "d: question 'r' or its answer holds half a character; write it as UTF-8",
        "d: question 's' or its answer holds half a character; write it as UTF-8",
        "d: question 't': task 'referring' takes a target of Regions, not Boxes; give it Regions, or a task "
        "that takes Boxes (detection, grounding, grounding_description)",
        "e: the earlier image is (3, 5, 3), the later one (4, 5, 3)",
        "image id 'a' occurs 3 times",
        "question id 'p' occurs 2 times",
    ]
