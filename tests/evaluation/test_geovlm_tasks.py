"""The tasks of GeoVLM-R1, from data on disk to the report, with a prompter whose texts are written beforehand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from answer_fakes import EVERY_TASK, conversations
from dataset_fakes import corrupt
from typer.testing import CliRunner

from segearth.cli import app
from segearth.data.readers.conversations import Conversations
from segearth.errors import DatasetError, QuestionError, SegEarthError
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.report import render_markdown, report_facts
from segearth.evaluation.scorers import SCORERS
from segearth.prompting.answers import Instance
from segearth.prompting.promptable import BoxFill
from segearth.prompting.prompted import PromptedSegmenter
from segearth.prompting.prompter import Prompter
from segearth.prompting.templates import GEOVLM_TASKS
from segearth.segmenter import counts_of, facts_of
from segearth.structures import Boxes

MODEL = SimpleNamespace(eval=lambda: MODEL, device=torch.device("cpu"))
WRONG = {"boxes": "```json\n[]\n```", "words": "zzz"}
SCORER_OF = {task: name for name, scorer in SCORERS.items() for task in scorer.tasks}


class Scripted(Prompter):
    """Writes the text that belongs to a prompt; what it is asked and shown is kept."""

    def __init__(self, *parts, texts=None, **options):
        super().__init__(*parts, **options)
        self.texts, self.asked = {} if texts is None else texts, []

    def generate(self, conversations):
        written = []
        for (turn,) in conversations:
            *images, text = turn["content"]
            self.asked.append((text["text"], [part["image"] for part in images]))
            written.append(self.texts[text["text"]])
        return written


def scripted(texts=None):
    return PromptedSegmenter(Scripted(MODEL, None, by_task=GEOVLM_TASKS, texts=texts), BoxFill())


def right_answer(question, template, height, width):
    """What a model that knows everything writes, in the template's form and frame."""
    target = question.target
    if isinstance(target, Boxes):
        things = [template.frame.from_pixels(Instance(box=box, label="block"), height, width) for box in target.values]
        return template.write(things, "I see", question.answer or "")
    return template.write(None, "I see", ", ".join(getattr(target, "right", None) or target.references[:1]))


def texts_for(dataset, right=True):
    prompter, texts = scripted().prompter, {}
    for sample in dataset:
        height, width = sample.image.shape[:2]
        for question in sample.questions:
            template = prompter.template_for(question.task)
            asked = prompter.messages(sample.image, question.text, question.task, sample.before, question.box)
            prompt = asked[0]["content"][-1]["text"]
            assert prompt not in texts
            texts[prompt] = right_answer(question, template, height, width) if right else wrong_answer(question)
    return texts


def wrong_answer(question):
    of_boxes = isinstance(question.target, Boxes)
    return f"<think>no</think>\n<answer>{WRONG['words' if not of_boxes else 'boxes']}</answer>"


def scored(root, task, right, **options):
    train = Conversations(conversations(root, "train", 4, (task,)), "train")
    test = Conversations(conversations(root, "test", 3, (task,)), "test")
    texts = texts_for(test, right)
    result = evaluate(scripted(Everything(texts)), test, train_dataset=train, progress=False, **options)
    return result.by_scorer[SCORER_OF[task]], result


class Everything(dict):
    """Texts by prompt; a prompt that only a control asks gets a text of no meaning."""

    def __missing__(self, prompt):
        return "<think>?</think>\n<answer>```json\n[]\n```</answer>"


@pytest.mark.parametrize("task", EVERY_TASK)
def test_right_answers_score_one_and_wrong_ones_zero(tmp_path, task):
    best, result = scored(tmp_path, task, True)
    assert best.headline == pytest.approx(1, abs=1e-3 if task == "grounding_description" else 1e-9)
    assert len(best.records) == 3 and {record.task for record in best.records} == {task}
    assert result.counts == (0, 3)
    expected = SCORERS[SCORER_OF[task]].fitted_control, "shuffled_questions"
    assert set(expected) <= set(best.controls)
    assert best.margin > 0 or task in ("vqa",)
    worst, _ = scored(tmp_path, task, False)
    assert worst.headline == 0


def test_two_images_are_shown_in_their_order_at_the_templates_size(tmp_path):
    dataset = Conversations(conversations(tmp_path, "test", 2), "test")
    segmenter = scripted(texts_for(dataset))
    evaluate(segmenter, dataset, controls=False, progress=False, batch_size=3)
    shown = dict(segmenter.prompter.asked)
    pairs = [images for text, images in shown.items() if "Two images" in text]
    assert len(pairs) == 4 and len(shown) == 20
    assert all([image.size for image in images] == [(448, 448)] * 2 for images in pairs)
    assert all([np.asarray(image).max() for image in images] == [127, 255] for images in pairs)
    assert all(len(images) == 1 for text, images in shown.items() if "Two images" not in text)


def test_a_region_is_written_in_the_templates_frame(tmp_path):
    dataset = Conversations(conversations(tmp_path, "test", 2, ("region_caption",)), "test")
    texts = texts_for(dataset)  # the region is at (8, 16, 24, 32) of 64 pixels, and 448 is seven times that
    assert [text.split("\n")[0] for text in texts] == [
        "what is here [0, 112, 112, 224]", "what is here [56, 112, 168, 224]"
    ]  # fmt: skip
    assert all("Coordinates are pixels of the image, which is 448 wide and 448 high" in text for text in texts)


def test_shuffled_questions_take_their_region_along_and_pairs_stay_among_pairs(tmp_path):
    dataset = Conversations(conversations(tmp_path, "test", 3, ("caption", "region_caption", "change_caption")), "test")
    segmenter = scripted(Everything())
    evaluate(segmenter, dataset, progress=False)
    regions = [text for text, _ in segmenter.prompter.asked if text.startswith("what is here")]
    assert len(regions) == 6 and all(text.count("[") == 1 for text in regions)
    first, shuffled = regions[::2], regions[1::2]
    assert len(set(first)) == 3 and all(own != other for own, other in zip(first, shuffled, strict=True))


def test_a_segmenter_that_sees_one_image_says_so(tmp_path):
    class OneImage:
        def set_image(self, image): ...
        def set_images(self, images): ...
        def predict(self, questions, **options): ...

    conversations(tmp_path, "test", 2, ("change_caption",))
    conversations(tmp_path, "val", 2, ("region_caption",))
    with pytest.raises(SegEarthError, match="about pairs of images, and a OneImage sees one image at a time"):
        evaluate(OneImage(), Conversations(tmp_path, "test"), controls=False, progress=False)
    with pytest.raises(SegEarthError, match="'what is here' are about a region, and a OneImage is asked about whole"):
        evaluate(OneImage(), Conversations(tmp_path, "val"), controls=False, progress=False)
    assert not facts_of(OneImage()).sees_pairs and counts_of(OneImage()) == (0, 0)


def test_a_pair_must_be_set_where_it_is_asked_about():
    segmenter = scripted(Everything())
    grey = np.full((64, 64, 3), 90, np.uint8)
    segmenter.set_image(grey)
    with pytest.raises(QuestionError, match=r"asks about two images and one is set; .*set_image\(image, before=…\)"):
        segmenter.predict("what changed?", task="change_caption")
    segmenter.set_images([grey, grey], before=[None, grey // 2])
    segmenter.predict(["what changed?", "where?"], task=["change_caption", "grounding"], about=[1, 0])
    with pytest.raises(SegEarthError, match="2 questions but 1 earlier images"):
        segmenter.set_images([grey, grey], before=[grey])


def test_boxes_are_answered_as_they_were_written():
    """A segmenter's own edge, and the rule that drops one of two boxes that overlap, are for masks."""

    class Nothing(BoxFill):
        def masks(self, instances):
            raise AssertionError("asked for a mask")

    boxes = [[70, 70, 140, 140], [70, 70, 140, 133], [15, 14, 18, 17]]  # the last is less than a pixel
    listed = [{"bbox_2d": box, "label": "a"} for box in boxes]
    said = f"<think>so</think>\n<answer>```json\n{json.dumps(listed)}\n```</answer>"
    segmenter = scripted(Everything())
    segmenter.prompter.texts = Always(said)
    segmenter.segmenter = Nothing()
    segmenter.set_image(np.zeros((64, 64, 3), np.uint8))
    answer = segmenter.predict("find blocks", task="detection")
    assert np.allclose(answer.boxes, np.array(boxes) / 7) and (answer.score, answer.presence) == (1, 1)
    assert [region.box for region in answer.regions] == [(10, 10, 20, 20), (10, 10, 20, 19)]
    with pytest.raises(AssertionError, match="asked for a mask"):
        segmenter.predict("find blocks")


class Always(dict):
    """One text for every prompt."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def __missing__(self, prompt):
        return self.text


BAD = {
    "broken JSON": ('```json\n[{"bbox_2d": [10, 20, 30\n```', False),
    "prose": ("There are several.", False),
    "reversed": ('```json\n[{"bbox_2d": [140, 140, 70, 70], "label": "a"}]\n```', True),
    "huge": ('```json\n[{"bbox_2d": [-1e300, -1e300, 1e300, 1e300], "label": "a"}]\n```', True),
    "not a number": ('```json\n[{"bbox_2d": [NaN, 0, 10, 10], "label": "a"}]\n```', False),
    "texts": ('```json\n[{"bbox_2d": ["70", "70", "140", "140"], "label": "a"}]\n```', True),
    "words": ('```json\n[{"bbox_2d": ["left", "top", "right", "low"], "label": "a"}]\n```', False),
    "thousands": (f"```json\n{json.dumps([{'bbox_2d': [i, 0, i + 9, 9]} for i in range(5000)])}\n```", True),
    "nothing": ("", False),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD))
@pytest.mark.parametrize("task", ["detection", "grounding_description"])
def test_bad_answers_are_counted_and_the_run_goes_on(tmp_path, name, task):
    text, readable = BAD[name]
    dataset = Conversations(conversations(tmp_path, "test", 2, (task,)), "test")
    result = evaluate(scripted(Always(f"<think>so</think>\n<answer>{text}</answer>")), dataset, progress=False)
    assert result.counts == (0 if readable else 2, 2)  # those of the shuffled questions do not count
    found = result.by_scorer[SCORER_OF[task]]
    assert len(found.records) == 2 and all(0 <= record.value < 1 for record in found.records)
    assert f"- answers that could not be read: {result.counts.unreadable} of 2" in render_markdown(
        report_facts(result, "m", {})
    )


def test_words_that_never_come_are_unreadable(tmp_path):
    dataset = Conversations(conversations(tmp_path, "test", 2, ("caption", "multi_label")), "test")
    result = evaluate(scripted(Always("<think>I go on and on")), dataset, controls=False, progress=False)
    assert result.counts == (4, 4) and result.by_scorer["captions"].headline == 0


def test_a_picture_that_does_not_open_is_counted_and_the_run_goes_on(tmp_path, caplog):
    dataset = Conversations(conversations(tmp_path, "test", 3, ("caption", "change_caption")), "test")
    texts = texts_for(dataset)
    corrupt(tmp_path / "images/test1.png")
    result = evaluate(scripted(Everything(texts)), dataset, train_dataset=dataset, progress=False, batch_size=2)
    found = result.by_scorer["captions"]
    assert len(result.unreadable_images) == 2 and "test1.png: damaged" in result.unreadable_images[0]
    assert len(found.records) == 4 and found.headline == 1 and all(len(own) == 4 for own in found.controls.values())
    assert "2 images could not be read and were left out" in caplog.text
    facts = report_facts(result, "m", {})
    assert "- images that could not be read: 2, left out, such as " in render_markdown(facts)
    for i in (0, 2):
        corrupt(tmp_path / f"images/test{i}.png")
    nothing = evaluate(scripted(texts), dataset, progress=False)
    with pytest.raises(DatasetError, match=r"nothing was scored: 6 images could not be read, such as .*test0\.png"):
        report_facts(nothing, "m", {})


def test_the_command_line_scores_a_prompted_folder_on_every_task(tmp_path, monkeypatch):
    for split in ("train", "test"):
        conversations(tmp_path / "data", split, 3)
    texts = texts_for(Conversations(tmp_path / "data", "test"))
    monkeypatch.setattr(
        Prompter, "from_pretrained",
        classmethod(lambda cls, source, device, dtype, **options: Scripted(
            MODEL, None, texts=Everything(texts), **options)),
    )  # fmt: skip
    model = tmp_path / "model"
    model.mkdir()
    card = {"family": "prompted", "vision_language_model": "vlm", "promptable_segmenter": "boxes"}
    (model / "prompted.json").write_text(json.dumps({**card, "by_task": GEOVLM_TASKS}))
    data = {"name": "conversations", "root": str(tmp_path / "data")}
    experiment = tmp_path / "tasks.yaml"
    experiment.write_text(json.dumps({
        "data": {split: [{**data, "split": split}] for split in ("train", "test")},
        "train": {"output_dir": str(tmp_path / "run")},
    }))  # fmt: skip
    result = CliRunner().invoke(app, ["eval", str(experiment), "--model", str(model)])
    assert result.exit_code == 0, result.output
    facts = json.loads((model / "eval_test/report.json").read_text())
    found = {facts["scorer"]: facts, **facts["other_tasks"]}
    assert {name: own["metrics"]["samples"] for name, own in found.items()} == {
        "boxes": 6, "descriptions": 3, "captions": 9, "short_answers": 3, "choices": 9
    }  # fmt: skip
    for name, own in found.items():
        assert own["metrics"][SCORERS[name].headline] > 0.999, name
        assert "shuffled_questions" in own["controls"]
    assert "answers that could not be read: 0 of 30" in (model / "eval_test/report.md").read_text()
