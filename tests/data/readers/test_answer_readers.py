"""Readers of published sets that are answered in words or boxes, on generated layouts."""

from __future__ import annotations

import json

import pytest
from answer_fakes import dior_rsvg, levir_cc, rsicd, rsvqa, vrsbench, write_json
from dataset_fakes import corrupt, write_image

from segearth.data.readers.dior_rsvg import DiorRSVG
from segearth.data.readers.levir_cc import LevirCC
from segearth.data.readers.rsicd import RSICD
from segearth.data.readers.rsvqa import RSVQAHR, RSVQALR
from segearth.data.readers.vrsbench import VRSBench
from segearth.data.registry import build_dataset
from segearth.data.verify import verify_dataset
from segearth.errors import DatasetError, ImageError, UnknownNameError
from segearth.structures import Boxes, Text, check_target

LAYOUTS = {
    "dior_rsvg": (dior_rsvg, {"train": 2, "val": 1, "test": 1}), "vrsbench": (vrsbench, {"train": 3, "test": 4}),
    "rsvqa_lr": (rsvqa, {"train": 3}), "rsicd": (rsicd, {"train": 2, "test": 1}),
    "levir_cc": (levir_cc, {"train": 2, "test": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_layout_verifies_and_every_target_fits_its_task(tmp_path, name):
    make, counts = LAYOUTS[name]
    make(tmp_path)
    reports = {report.split: report for report in verify_dataset(name, tmp_path, counts)}
    assert {split: report.questions for split, report in reports.items()} == counts
    assert all(report.ok for report in reports.values())
    for split in counts:
        for sample in build_dataset(name, tmp_path, split):
            for question in sample.questions:
                check_target(question)
                assert question.target is not None and question.id


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_missing_file_prints_the_tree_and_a_damaged_picture_is_named(tmp_path, name):
    make, _ = LAYOUTS[name]
    make(tmp_path)
    dataset = build_dataset(name, tmp_path, "train")
    picture = dataset[0].path
    corrupt(picture)
    with pytest.raises(ImageError, match=picture.name):
        build_dataset(name, tmp_path, "train")[0]
    picture.unlink()
    with pytest.raises(DatasetError, match=rf"{picture.name} is missing under .*\nexpected:\nROOT/"):
        build_dataset(name, tmp_path, "train")
    lenient = build_dataset(name, tmp_path, "train", strict=False)
    assert len(lenient) == len(dataset) - 1 and len(lenient.problems) == 1
    with pytest.raises(DatasetError, match=r"is missing under .*\nexpected:\nROOT/"):
        build_dataset(name, tmp_path / "JPEGImages" if name == "dior_rsvg" else picture.parent, "train")


def test_dior_rsvg_counts_objects_through_all_files(tmp_path):
    ship, dam = DiorRSVG(dior_rsvg(tmp_path), "train")
    assert (ship.image_id, dam.image_id) == ("00002", "00010") and dam.image[0, 0, 0] == 100
    (asked,) = ship.questions
    assert (asked.text, asked.kind, asked.task, asked.id) == ("the ship", "ship", "grounding", "00002_0")
    assert asked.target == Boxes(((1, 2, 5, 6),)) and dam.questions[0].target == Boxes(((3, 1, 8, 7),))
    (test,) = DiorRSVG(tmp_path, "test")
    assert [(q.text, q.id) for q in test.questions] == [("a dam to test", "00002_1")]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("<xmin>3</xmin>", "<xmin>wide</xmin>", r"00010\.xml, object 2 of all: its box is \['wide', '1', '8', '7'\]"),
    ("<xmin>3</xmin>", "<xmin>9</xmin>", "its box is .*not four numbers in order"),
    ("the dam", "  ", "object 2 of all: has no description"),
    ("</annotation>", "", r"00010\.xml: not valid XML .*; fetch it again"),
])  # fmt: skip
def test_dior_rsvg_with_a_broken_annotation(tmp_path, old, new, message):
    path = dior_rsvg(tmp_path) / "Annotations/00010.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=message):
        DiorRSVG(tmp_path, "train")


def test_dior_rsvg_whose_annotations_are_not_all_there(tmp_path):
    (dior_rsvg(tmp_path) / "Annotations/00010.xml").unlink()
    with pytest.raises(DatasetError, match=r"train\.txt names object 2, .* have 2; some are missing"):
        DiorRSVG(tmp_path, "train")
    (tmp_path / "train.txt").write_text("0\n-1\n")
    with pytest.raises(DatasetError, match=r"train\.txt:2: expected the number of an object, got '-1'"):
        DiorRSVG(tmp_path, "train")


def test_vrsbench_train_and_the_files_for_scoring(tmp_path):
    vrsbench(tmp_path)
    a, b = VRSBench(tmp_path, "train")
    assert [(q.task, q.text) for q in a.questions] == [
        ("caption", "Could you describe the contents of this image for me?"),
        ("grounding", "could you tell me the location for the left ship?"),
    ]
    assert a.questions[1].target == Boxes(((10, 10, 30, 20),)) and a.questions[1].answer is None
    assert [(q.text, q.target, q.id) for q in b.questions] == [("How many ships?", Text(("2",)), "train_2")]
    asked = {q.id: q for sample in VRSBench(tmp_path, "test") for q in sample.questions}
    assert asked["grounding_0"].target == Boxes(((50, 0, 100, 50),))  # cut at the image
    assert {name: q.kind for name, q in asked.items()} == {
        "caption_0": "", "grounding_0": "unique", "vqa_0": "rural or urban", "vqa_1": "quantity"
    }  # fmt: skip
    assert asked["vqa_1"].target == Text(("3",)) and asked["caption_0"].target == Text(("A field.",))


def test_vrsbench_by_task(tmp_path):
    vrsbench(tmp_path)
    (tmp_path / "VRSBench_EVAL_Cap.json").unlink()
    (only,) = VRSBench(tmp_path, "test", tasks=["grounding"])
    assert [q.task for q in only.questions] == ["grounding"]
    with pytest.raises(UnknownNameError, match="unknown vrsbench task 'detection'"):
        VRSBench(tmp_path, "test", tasks=("detection",))
    with pytest.raises(DatasetError, match=r"VRSBench_EVAL_Cap\.json is missing"):
        VRSBench(tmp_path, "test")


@pytest.mark.parametrize(("change", "message"), [
    ({"ground_truth": "none"}, "question grounding_0: 'none' is no box"),
    ({"ground_truth": ""}, "row 0: 'ground_truth' is ''; expected a text that is not empty"),
    ({"question": ["where"]}, r"row 0: 'question' is \['where'\]"),
])  # fmt: skip
def test_vrsbench_with_a_broken_row(tmp_path, change, message):
    path = vrsbench(tmp_path) / "VRSBench_EVAL_referring.json"
    rows = json.loads(path.read_text())
    write_json(path, [{**rows[0], **change}])
    with pytest.raises(DatasetError, match=message):
        list(VRSBench(tmp_path, "test"))


def test_rsvqa_meets_by_id(tmp_path):
    samples = {sample.image_id: sample for sample in RSVQALR(rsvqa(tmp_path), "train")}
    assert {name: int(sample.image[0, 0, 0]) for name, sample in samples.items()} == {"4": 40, "6": 60}
    assert [(q.id, q.text, q.kind, q.target) for q in samples["4"].questions] == [
        ("9", "How many roads?", "count", Text(("0",))), ("7", "A road?", "presence", Text(("yes",)))
    ]  # fmt: skip
    assert samples["6"].questions[0].answer == "no"


def test_rsvqa_of_high_resolution_has_two_test_splits(tmp_path):
    rsvqa(tmp_path, "USGS", "Data", "test_phili")
    assert len(RSVQAHR(tmp_path, "test_phili")) == 2
    with pytest.raises(DatasetError, match=r"USGS_split_test_images\.json is missing"):
        RSVQAHR(tmp_path, "test")
    with pytest.raises(UnknownNameError, match="unknown rsvqa_lr split 'test_phili'"):
        RSVQALR(tmp_path, "test_phili")


@pytest.mark.parametrize(("change", "message"), [
    ({"answers_ids": [99]}, r"question 9: answers \[99\] are not in LR_split_train_answers\.json"),
    ({"answers_ids": []}, r"question 9: answers \[\] are not in"),
    ({"img_id": 5}, "question 9: image 5 is not in LR_split_train_images"),
    ({"question": None}, "question 9: 'question' is None"),
])  # fmt: skip
def test_rsvqa_with_a_broken_row(tmp_path, change, message):
    path = rsvqa(tmp_path) / "LR_split_train_questions.json"
    content = json.loads(path.read_text())
    content["questions"][0].update(change)
    write_json(path, content)
    with pytest.raises(DatasetError, match=message):
        RSVQALR(tmp_path, "train")
    lenient = RSVQALR(tmp_path, "train", strict=False)
    assert len(lenient.problems) == 1 and sum(len(sample.questions) for sample in lenient) == 2


def test_rsicd_asks_once_and_every_sentence_is_right(tmp_path):
    pond, number = RSICD(rsicd(tmp_path), "train")
    (asked,) = pond.questions
    assert asked.target == Text(("pond_2.jpg said 0.", "pond_2.jpg said 1.")) and asked.task == "caption"
    assert (asked.kind, number.questions[0].kind) == ("pond", "")
    assert (pond.image_id, number.image_id) == ("pond_2", "00003") and number.image[0, 0, 0] == 30


def test_levir_cc_holds_the_earlier_image_beside_the_later(tmp_path):
    first, second = LevirCC(levir_cc(tmp_path), "train")
    assert [int(image[0, 0, 0]) for image in (first.before, first.image, second.before, second.image)] == [
        10, 11, 20, 21
    ]  # fmt: skip
    (asked,) = first.questions
    assert (asked.task, asked.kind, second.questions[0].kind) == ("change_caption", "changed", "unchanged")
    assert asked.target.references == ("a road 1 appears .", "there is a road 1 .")
    (tmp_path / "images/train/A/train_2.png").unlink()
    with pytest.raises(DatasetError, match=r"images/train/A/train_2\.png is missing"):
        LevirCC(tmp_path, "train")
    write_image(tmp_path / "images/train/A/train_2.png", 20, (9, 10))
    (report,) = verify_dataset("levir_cc", tmp_path, ["train"])
    assert "has the sizes 10x9 and 10x8" in report.problems[0]


@pytest.mark.parametrize(("change", "message"), [
    ({"sentences": []}, "image 0: pond_2.jpg has no sentence"),
    ({"sentences": [{"raw": ""}]}, "image 0, a sentence: 'raw' is ''"),
    ({"sentences": "a pond"}, "image 0: expected an object with a list 'sentences'"),
    ({"filename": None}, "image 0: 'filename' is None"),
])  # fmt: skip
def test_a_list_of_captions_with_a_broken_row(tmp_path, change, message):
    path = rsicd(tmp_path) / "dataset_rsicd.json"
    content = json.loads(path.read_text())
    content["images"][0].update(change)
    write_json(path, content)
    with pytest.raises(DatasetError, match=message):
        RSICD(tmp_path, "train")
    assert len(RSICD(tmp_path, "train", strict=False)) == 1
    write_json(path, [1])
    with pytest.raises(DatasetError, match="expected an object with a list 'images'"):
        RSICD(tmp_path, "train")
