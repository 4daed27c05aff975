"""What is the same for all scorers, and one split that needs several."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scorer_fakes import AllKnowing, Mixed

from segearth.errors import DatasetError, UnknownNameError
from segearth.evaluation.compare import as_markdown, compare_records, read_records
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.report import report_facts, run_evaluation
from segearth.evaluation.scorers import SCORERS, get_scorer, scorer_of
from segearth.structures import TARGETS_OF_TASK, Choices, Question, Text


def evaluated(**options):
    return evaluate(AllKnowing(), Mixed(), progress=False, **options)


def test_every_task_has_exactly_one_scorer():
    tasks = [task for scorer in SCORERS.values() for task in scorer.tasks]
    assert sorted(tasks) == sorted(TARGETS_OF_TASK)


def test_an_unknown_task_and_a_target_it_does_not_take_are_named_in_one_line():
    with pytest.raises(UnknownNameError, match="unknown task 'captoin'; did you mean 'caption'"):
        scorer_of(Question("describe it", task="captoin"))
    asked = Question("describe it", task="caption", target=Choices(("a", "b"), ("a",)))
    with pytest.raises(DatasetError, match=r"takes a target of Text, not Choices; give it Text, or a task") as error:
        scorer_of(asked)
    assert "\n" not in str(error.value)
    with pytest.raises(UnknownNameError, match="scorer 'box'"):
        get_scorer("box")


def test_a_task_that_nothing_scores_is_named(monkeypatch):
    monkeypatch.setitem(TARGETS_OF_TASK, "counting", (Text,))
    with pytest.raises(UnknownNameError, match="task with a scorer 'counting'"):
        scorer_of(Question("how many?", task="counting", target=Text(("3",))))


def test_each_question_is_scored_by_the_scorer_of_its_task():
    result = evaluated()
    names = ["segmentation", "boxes", "descriptions", "captions", "short_answers", "choices"]
    assert list(result.by_scorer) == names
    headlines = {name: found.headline for name, found in result.by_scorer.items()}
    # METEOR of three right words in one piece is 1 - (1/3)³/2; a sixth of the score is METEOR.
    described = 1 - 0.5 / 27 / 6
    assert headlines == pytest.approx(dict.fromkeys(names, 1) | {"descriptions": described, "choices": 0.5})
    assert all(len(found.records) == 4 for found in result.by_scorer.values())
    assert result.metrics is result.by_scorer["segmentation"].metrics
    assert result.questions_per_second == 24 / result.seconds
    assert result.images_per_second == 4 / result.seconds


def test_words_are_asked_for_only_where_they_are_scored():
    model = AllKnowing()
    evaluate(model, Mixed(1), controls=False, progress=False)
    assert model.worded == [
        (["referring"], False), (["detection"], False), (["caption"], True), (["vqa"], True),
        (["classification"], True), (["grounding_description"], True),
    ]  # fmt: skip


def test_each_scorer_has_the_controls_that_make_sense_for_it():
    result = evaluated(train_dataset=Mixed(6, "train"))
    assert {name: list(found.controls) for name, found in result.by_scorer.items()} == {
        "segmentation": ["everything", "nothing", "mean_mask", "shuffled_questions"],
        "boxes": ["everything", "nothing", "mean_box", "shuffled_questions"],
        "descriptions": ["everything", "nothing", "mean_box", "shuffled_questions"],
        "captions": ["commonest_answer", "shuffled_questions"],
        "short_answers": ["commonest_answer", "shuffled_questions"],
        "choices": ["every_option", "commonest_answer", "shuffled_questions"],
    }
    found = result.by_scorer
    assert found["boxes"].headline_of("everything") == pytest.approx(48 / 600)  # the block in the whole image
    assert found["boxes"].headline_of("nothing") == 0
    assert 0.5 < found["boxes"].headline_of("mean_box") < 1
    assert found["short_answers"].headline_of("commonest_answer") == 1
    assert found["short_answers"].margin == 0  # all say yes: a model that says yes has understood nothing
    assert found["choices"].headline_of("every_option") == pytest.approx(2 / 5)  # one of four: 1/4 and 1
    assert found["choices"].headline_of("commonest_answer") == 0.5


def test_without_the_training_split_what_is_fitted_is_left_out():
    assert "mean_box" not in evaluated().by_scorer["boxes"].controls


@pytest.mark.parametrize(("tasks", "warnings"), [
    (["referring"], [
        *["control mean_box left out: mixed, split train: no box to take the mean of"] * 2,
        *["control commonest_answer left out: mixed, split train: no right answer to count"] * 3,
    ]),
    (["detection", "grounding_description", "caption", "vqa", "classification"], [
        "control mean_mask left out: mixed, split train: no question has a mask to take the mean of",
    ]),
])  # fmt: skip
def test_what_the_training_split_has_no_targets_for_is_left_out_and_the_rest_is_scored(caplog, tasks, warnings):
    whole = evaluated(train_dataset=Mixed(6, "train")).by_scorer
    caplog.clear()
    partly = evaluated(train_dataset=Mixed(6, "train", tasks=tasks)).by_scorer
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == warnings
    left_out = {name: [c for c in whole[name].controls if c not in partly[name].controls] for name in SCORERS}
    assert left_out == {
        name: [] if set(scorer.tasks) & set(tasks) else [scorer.fitted_control] for name, scorer in SCORERS.items()
    }
    assert all(partly[name].records == whole[name].records for name in SCORERS)


def test_a_training_split_that_cannot_be_read_is_not_passed_over():
    class Broken(Mixed):
        def __getitem__(self, index):
            if index == 2:
                raise DatasetError("mask a.png cannot be read")
            return super().__getitem__(index)

    with pytest.raises(DatasetError, match=r"a\.png cannot be read"):
        evaluated(train_dataset=Broken(4, "train"))


def test_shuffled_questions_stay_within_the_scorer():
    class Noting(AllKnowing):
        def predict(self, questions, *, task, about, answer=False):
            assert len({SCORER_OF_TASK[each] for each in task}) == 1
            return super().predict(questions, task=task, about=about, answer=answer)

    evaluate(Noting(), Mixed(), progress=False, batch_size=2)


SCORER_OF_TASK = {task: name for name, scorer in SCORERS.items() for task in scorer.tasks}


def test_an_id_may_not_occur_twice_whatever_the_scorers():
    dataset = Mixed(1)
    for question in dataset[0].questions:
        question.id = "same"
    with pytest.raises(DatasetError, match="'same' occurs twice"):
        evaluate(AllKnowing(), dataset, controls=False, progress=False)


def test_an_id_may_not_occur_in_two_images_under_two_scorers():
    dataset = Mixed(2)
    dataset[0].questions[0].id = dataset[1].questions[1].id = "same"
    with pytest.raises(DatasetError, match="'same' occurs twice"):
        evaluate(AllKnowing(), dataset, controls=False, progress=False)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_nothing_to_score_is_an_error(name):
    with pytest.raises(DatasetError, match="no samples to score"):
        SCORERS[name].summary([])


def test_the_report_has_a_section_for_each_and_reads_back(tmp_path):
    run_evaluation(AllKnowing(), Mixed(), tmp_path, model_name="all", train_dataset=Mixed(6, "train"), progress=False)
    text = (tmp_path / "report.md").read_text()
    headings = ["all on mixed, split test", "Boxes", "Descriptions", "Captions", "Short answers", "Choices"]
    assert re.findall(r"^# (.*)$", text, re.M) == headings
    assert "**matched IoU 100.00** (95 % interval 100.00 to 100.00), 4 questions about 4 images." in text
    assert "| **model** | 4 | 50.00 | 50.00 | 50.00 | 50.00 |" in text
    assert "Margin over the best control (`commonest_answer`): **+0.00 points of exact**" in text
    assert text.count("AP50 is COCO's") == 1
    assert text.count("METEOR: without") == 1  # two scorers of words share one explanation
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["scorer"] == "segmentation" and facts["metrics"]["giou"] == 1
    assert {name: own["metrics"]["samples"] for name, own in facts["other_tasks"].items()} == {
        "boxes": 4, "descriptions": 4, "captions": 4, "short_answers": 4, "choices": 4
    }  # fmt: skip
    assert facts["other_tasks"]["choices"]["f1_interval_95"] == [0, 1]


def test_two_runs_of_several_scorers_are_compared_scorer_by_scorer(tmp_path):
    class Silent(AllKnowing):
        def predict(self, questions, **options):
            answers = super().predict(questions, **options)
            for answer in answers:
                answer.answer = None
            return answers

    for name, model in (("speaks", AllKnowing()), ("silent", Silent())):
        run_evaluation(model, Mixed(), tmp_path / name, model_name=name, controls=False, progress=False)
    first, second = read_records(tmp_path / "speaks"), read_records(tmp_path / "silent")
    rows = {row.group: row for row in compare_records(first, second)}
    assert rows["segmentation: all"].gain == 0
    assert (rows["captions: all"].gain, rows["captions: all"].verdict) == (1, "first")
    assert rows["choices: all"].gain == 0.5
    assert "short_answers: speaks is better" in as_markdown(list(rows.values()), "speaks", "silent")
    changed = Mixed()
    changed[0].questions[3].target = Text(("no",))
    run_evaluation(AllKnowing(), changed, tmp_path / "other", model_name="o", controls=False, progress=False)
    with pytest.raises(DatasetError, match="'0-vqa' has another text or target"):
        compare_records(first, read_records(tmp_path / "other"))


def test_a_split_of_one_scorer_has_no_other_tasks():
    result = evaluate(AllKnowing(), Mixed(tasks=["detection"]), controls=False, progress=False)
    facts = report_facts(result, "m", {})
    assert "other_tasks" not in facts
    assert (facts["scorer"], facts["metrics"]["matched_iou"]) == ("boxes", 1)
    assert facts["breakdown"]["target"].keys() == {"present"}
    assert np.isclose(facts["metrics"]["ap50"], 1)
