"""Conversations in the words of EarthDial, and in those of anybody."""

from __future__ import annotations

import doctest
import json

import pytest
from answer_fakes import EVERY_TASK, conversations, write_json
from dataset_fakes import write_image

from segearth.data.readers import marked_text
from segearth.data.readers.conversations import Conversations
from segearth.data.readers.marked_text import boxes_of, plain
from segearth.data.verify import verify_dataset
from segearth.errors import DatasetError
from segearth.structures import Boxes, Choices, Text


def one(tmp_path, question, answer, image="a.png", **more):
    """The only question of a file with one turn."""
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, 10, (100, 200))
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    write_json(tmp_path / "train.json", [{"id": "q", "image": image, "conversations": said, **more}])
    (sample,) = Conversations(tmp_path, "train")
    (question,) = sample.questions
    return question


def test_marks_say_the_task_and_a_pair_has_its_earlier_image(tmp_path):
    samples = list(Conversations(conversations(tmp_path), "train"))
    assert [(sample.image.max(), sample.before is None) for sample in samples] == [
        (255, True), (255, False), (255, True), (255, False)
    ]  # fmt: skip
    assert samples[1].before.max() == 127 and samples[1].before.shape == samples[1].image.shape
    asked = {question.id: question for sample in samples for question in sample.questions}
    assert {name: question.task for name, question in asked.items()} == {
        f"{task}_{i}": task for task in EVERY_TASK for i in range(2)
    }
    assert asked["caption_0"].text == "Describe picture 0." and asked["caption_0"].target == Text(("a white block 0",))
    assert asked["grounding_1"].text == "Where is block 1?"
    assert asked["grounding_1"].target == Boxes(((8, 16, 24, 32),)) and asked["grounding_1"].present
    assert len(asked["detection_0"].target.values) == 2 and asked["detection_0"].answer is None
    described = asked["grounding_description_1"]
    assert described.answer == "there is 1 large block number 1 on a dark ground."
    assert described.target == Boxes(((8, 16, 24, 32),))
    region = asked["region_caption_1"]
    assert (region.text, region.box) == ("what is here", (8, 16, 24, 32))
    assert asked["classification_1"].target == Choices(("harbor", "residential", "dense residential"),
                                                       ("dense residential",))  # fmt: skip
    assert asked["multi_label_0"].target.right == ("harbor", "residential")
    assert asked["temporal_classification_1"].target == Choices(("fire", "flood"), ("flood",))
    assert asked["vqa_0"].answer == "yes"


def test_the_files_verify(tmp_path):
    conversations(tmp_path)
    (report,) = verify_dataset("conversations", tmp_path)
    assert report.ok and (report.images, report.questions, report.unlabelled) == (4, 20, 0)


def test_turned_boxes_become_the_level_ones_around_them_in_pixels(tmp_path):
    question = one(tmp_path, "[refer] where is it?", "[[50, 50, 60, 70, 90]]")
    assert question.target.values == ((100, 50, 120, 70),)  # 20 x 20 px: turned by a right angle it is the same
    wide = one(tmp_path, "[refer] where is it?", "[[40, 40, 60, 50, -90]]")
    assert wide.target.values == ((95, 25, 105, 65),)  # 40 x 10 px, upright now


def test_an_empty_answer_to_a_detection_says_that_nothing_is_there(tmp_path):
    question = one(tmp_path, "<image>\nany ships?", "[]", task="detection")
    assert question.target == Boxes(()) and question.present is False


def test_a_question_that_is_asked_again_has_several_right_texts(tmp_path):
    write_image(tmp_path / "a.png", 10)
    write_image(tmp_path / "b.png", 20)
    said = [{"from": "human", "value": "[changedet] what changed?"}]
    write_json(tmp_path / "test.json", [
        {"id": n, "image": ["a.png", "b.png"], "conversations": [*said, {"from": "gpt", "value": text}]}
        for n, text in enumerate(["a road", "a new road", "a road"])
    ])  # fmt: skip
    (sample,) = Conversations(tmp_path, "test")
    (question,) = sample.questions
    assert question.target == Text(("a road", "a new road")) and question.id == "0"


def test_lines_turns_task_and_options_of_an_entry(tmp_path):
    write_image(tmp_path / "a.png", 10)
    turns = [("a port?", "Harbor"), ("a field?", "field.")]
    said = [part for question, answer in turns for part in ({"value": question}, {"value": answer})]
    entry = {"image": "a.png", "task": "classification", "options": ["harbor", "Field"], "kind": "scene",
             "conversations": said}  # fmt: skip
    (tmp_path / "val.jsonl").write_text(json.dumps(entry) + "\n\n")
    assert Conversations.splits_in(tmp_path) == ("val",)
    (sample,) = Conversations(tmp_path, "val")
    assert [(q.id, q.kind, q.target.right) for q in sample.questions] == [
        ("0_0", "scene", ("harbor",)), ("0_1", "scene", ("Field",))
    ]  # fmt: skip


def test_labels_with_commas_of_their_own(tmp_path):
    labels = ["land, natural", "land", "sea"]
    question = one(tmp_path, "which?", "Land, natural, sea", task="multi_label", options=labels)
    assert question.target.right == ("land, natural", "sea")


@pytest.mark.parametrize(("change", "message"), [
    ({"image": 3}, '"image" is 3; expected a path'),
    ({"image": []}, "expected a path, or a list of two"),
    ({"conversations": [{"value": "?"}]}, "has 1 turns; expected questions and answers in turn"),
    ({"conversations": "?"}, "expected an object with a list 'conversations'"),
    ({"conversations": [{"value": " "}, {"value": "yes"}]}, "'value' is ' '"),
    ({"task": "captoin"}, "unknown task of conversations 'captoin'; did you mean 'caption'"),
    ({"task": "referring"}, "unknown task of conversations 'referring'"),
    ({"task": "classification", "options": ["a", "b"]}, r"\['yes'\] is none of the classes \['a', 'b'\]"),
    ({"task": "region_caption"}, "names 0 boxes; a question about a region has one"),
    ({"image": "c.png"}, r"c\.png is missing under"),
])  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, change, message):
    write_image(tmp_path / "a.png", 10)
    said = [{"from": "human", "value": "is it?"}, {"from": "gpt", "value": "yes"}]
    write_json(tmp_path / "train.json", [{"image": "a.png", "conversations": said, **change}])
    with pytest.raises(DatasetError, match=message):
        list(Conversations(tmp_path, "train"))


def test_what_is_wrong_is_listed_and_the_rest_read(tmp_path):
    conversations(tmp_path, count=1, tasks=("vqa",))
    content = json.loads((tmp_path / "train.json").read_text())
    write_json(tmp_path / "train.json", [5, *content, {"image": "gone.png", **{k: v for k, v in content[0].items()
                                                                              if k == "conversations"}}])  # fmt: skip
    dataset = Conversations(tmp_path, "train", strict=False)
    assert len(dataset) == 1 and len(dataset.problems) == 2
    assert "entry 0: expected an object" in dataset.problems[0] and "gone.png is missing" in dataset.problems[1]
    with pytest.raises(DatasetError, match=r"val\.json is missing under .*\nexpected:\nROOT/"):
        Conversations(tmp_path, "val")


def test_a_pair_of_two_sizes_is_an_error(tmp_path):
    write_image(tmp_path / "a.png", 10, (8, 10))
    write_image(tmp_path / "b.png", 10, (9, 10))
    write_json(tmp_path / "train.json", [{"image": ["a.png", "b.png"], "conversations": [
        {"value": "what?"}, {"value": "nothing"}]}])  # fmt: skip
    with pytest.raises(DatasetError, match="has the sizes 10x8 and 10x9; they must be equal"):
        Conversations(tmp_path, "train")[0]


def test_plain_words_keep_what_is_no_mark():
    assert plain("a [b c] 3 x < 4 <ref>ship</ref> , {<1><2><3><4>}.") == "a [b c] 3 x < 4 ship,."
    assert boxes_of("[1, 2, 3] and [1, 2]", 10, 10) == ()


def test_the_examples_in_the_docstrings_come_out():
    found = doctest.testmod(marked_text)
    assert found.attempted and not found.failed
