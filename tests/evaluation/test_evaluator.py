from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import Patches, PerfectPredictor, ShiftedPredictor

from segearth.config import load_experiment
from segearth.errors import DatasetError, UnknownNameError
from segearth.evaluation.evaluator import EXAMPLE_SIZE, evaluate
from segearth.evaluation.metrics import merge_records
from segearth.evaluation.protocols import get_protocol
from segearth.evaluation.run import evaluate_experiment
from segearth.structures import Question, Sample, Segmentation


def run(predictor, dataset, **options):
    return evaluate(predictor, dataset, progress=False, **{"controls": False, **options})


def test_perfect_predictor_scores_one_and_beats_every_control():
    result = evaluate(PerfectPredictor(), Patches(), train_dataset=Patches(4, "train", seed=9), progress=False)
    assert result.metrics.giou == result.metrics.ciou == 1
    assert set(result.controls) == {"everything", "nothing", "mean_mask", "shuffled_questions"}
    assert result.control_metrics["shuffled_questions"].giou < 1
    assert result.margin == pytest.approx(1 - max(m.giou for m in result.control_metrics.values()))
    assert result.margin_interval[0] <= result.margin <= result.margin_interval[1]
    # 2 of 6 images lack the third colour: "nothing" is right on 2 of 18 samples
    assert result.control_metrics["nothing"].giou == pytest.approx(2 / 18)


def test_every_image_is_set_once_and_asked_all_its_questions_in_one_list():
    predictor = PerfectPredictor()
    dataset = Patches(3)
    run(predictor, dataset)
    assert predictor.set_images == 3
    assert predictor.asked == [[q.text for q in sample.questions] for sample in dataset]


def test_task_of_each_question_is_passed_on():
    dataset = Patches(1)
    dataset[0].questions[1].task = "reasoning"
    predictor = PerfectPredictor()
    run(predictor, dataset)
    assert predictor.tasks == ["referring", "reasoning", "referring"]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_any_number_of_processes_gives_the_same_records(world_size):
    whole = evaluate(ShiftedPredictor(), Patches(), progress=False)
    parts = [
        evaluate(ShiftedPredictor(), Patches(), rank=rank, world_size=world_size, progress=False)
        for rank in range(world_size)
    ]
    assert merge_records(part.records for part in parts) == whole.records
    for name, records in whole.controls.items():
        assert merge_records(part.controls[name] for part in parts) == records


def test_extremes_do_not_depend_on_the_number_of_processes():
    whole = run(ShiftedPredictor(), Patches(9), examples=3).extremes
    parts = [run(ShiftedPredictor(), Patches(9), examples=3, rank=r, world_size=2).extremes for r in range(2)]
    parts[0].merge(parts[1])
    for kind in ("best", "worst"):
        assert [e.record for e in getattr(parts[0], kind)] == [e.record for e in getattr(whole, kind)]
    assert len(whole.best) == 3
    assert whole.best[0].record.iou >= whole.best[-1].record.iou > whole.worst[0].record.iou
    assert all(example.record.union for example in whole.best)


def test_records_are_ordered_and_carry_the_facts():
    result = run(PerfectPredictor(), Patches(2))
    assert [r.id for r in result.records] == sorted(r.id for r in result.records)
    first = result.records[0]
    assert (first.image_id, first.source, first.presence, first.score) == ("image0", "odd", 0.75, 0.9)


def test_limit_counts_images():
    assert run(PerfectPredictor(), Patches(5), limit=2).metrics.images == 2


def test_questions_without_a_mask_are_passed_over():
    dataset = Patches(2)
    dataset[0].questions[0].mask = None
    result = run(PerfectPredictor(), dataset)
    assert (len(result.records), result.without_mask) == (5, 1)


def test_questions_without_an_id_get_one():
    dataset = Patches(1)
    for question in dataset[0].questions:
        question.id = ""
    assert [r.id for r in run(PerfectPredictor(), dataset).records] == ["image0#0", "image0#1", "image0#2"]


def test_published_protocol_asks_the_first_question_in_a_square_frame():
    dataset = Patches(3)
    result = run(PerfectPredictor(), dataset, protocol="segearth_r1")
    assert [r.id for r in result.records] == [sample.questions[0].id for sample in dataset]
    assert result.metrics.giou == 1
    # 32 x 48 pixels become 682 x 1024: an area 21.3**2 times as large
    native = dataset[0].questions[0].mask.sum()
    assert result.records[0].target_area == pytest.approx(native * (1024 / 48) ** 2, rel=0.02)


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'native'"):
        run(PerfectPredictor(), Patches(1), protocol="natve")


def test_prediction_of_another_size_is_an_error_naming_the_sample():
    class Wrong(PerfectPredictor):
        def _answer(self, question):
            answer = super()._answer(question)
            answer.mask = answer.mask[1:]
            return answer

    with pytest.raises(DatasetError, match=r"0-red roof.*\(47, 32\)"):
        run(Wrong(), Patches(1))


def test_nothing_to_score_is_an_error():
    dataset = Patches(0)
    with pytest.raises(DatasetError, match="no samples"):
        _ = run(PerfectPredictor(), dataset).metrics


def test_pictures_of_large_images_are_kept_small():
    image = np.zeros((1200, 600, 3), np.uint8)
    image[100:900, 100:300] = 200
    dataset = Patches(1)
    dataset.samples = [Sample("large", image, [Question("red roof", image[..., 0] == 200, id="q")])]
    example = run(PerfectPredictor(), dataset).extremes.best[0]
    assert example.image.shape == (EXAMPLE_SIZE, EXAMPLE_SIZE // 2, 3)
    assert example.target.mean() == pytest.approx((image[..., 0] == 200).mean(), abs=0.02)


WORKER = """
import json, sys
import torch.distributed as dist
from segearth.evaluation.evaluator import evaluate
from evaluation_fakes import Patches, ShiftedPredictor
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
result = evaluate(ShiftedPredictor(), Patches(5), controls=False, rank=rank, world_size=2, progress=False)
open(f"{out}{rank}", "w").write(json.dumps([[r.id, r.iou] for r in result.records]))
dist.destroy_process_group()
"""


def test_two_processes_gather_every_sample_once(tmp_path):
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here)]),
    }
    arguments = [str(tmp_path / "store"), str(tmp_path / "out")]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), *arguments], env=environment) for rank in range(2)
    ]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0]
    expected = [[r.id, r.iou] for r in run(ShiftedPredictor(), Patches(5)).records]
    for rank in range(2):
        assert json.loads((tmp_path / f"out{rank}").read_text()) == expected


def test_a_letterboxed_answer_is_compared_as_the_model_thresholded_it():
    """Resizing the finished mask into the frame would move its contour; the frame's own mask is taken where there is
    one of the protocol's size."""
    frame = np.zeros((1024, 1024), bool)
    frame[:3, :5] = True
    answer = Segmentation("roofs", np.ones((32, 48), bool), 1.0, True, 1.0, frame_mask=frame)
    published = get_protocol("segearth_r1")
    assert published.predicted(answer) is frame
    assert get_protocol("native").predicted(answer) is answer.mask
    answer.frame_mask = np.zeros((512, 512), bool)
    assert published.predicted(answer).sum() == 1024 * 682


@pytest.mark.parametrize(("asked", "used"), [("auto", "segearth_r1"), ("native", "native")])
def test_a_model_brings_its_protocol(debug_model, monkeypatch, tmp_path, asked, used):
    experiment = load_experiment("configs/experiment/aerial_mini.yaml", [f"eval.protocol={asked}"])
    monkeypatch.setattr(debug_model.config, "protocol", "segearth_r1")
    seen = {}

    def stand_in(*args, **options):
        seen.update(options)
        return run(PerfectPredictor(), Patches(1))

    monkeypatch.setattr("segearth.evaluation.run.run_evaluation", stand_in)
    evaluate_experiment(experiment, debug_model, "debug", "val", tmp_path)
    assert seen["protocol"] == used
