"""Computes this library's metrics in detectron2's evaluation loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from segearth.evaluation.protocols import get_protocol
from segearth.evaluation.records import SampleRecord, compute_metrics, merge_records
from segearth.evaluation.scorers.segmentation import SegmentationScorer
from segearth.structures import Question, Sample, Segmentation


class QuestionEvaluator(DatasetEvaluator):
    """Scores every question it is given as :func:`segearth.evaluation.evaluator.evaluate` does.

    The prediction is the union of the ``pred_masks`` of a question's instances, so other models of detectron2 can be
    scored in the same way.

    Attributes:
        protocol: The evaluation protocol.
        scorer: Makes the records.
        records: One record for each question that this process has seen since the last reset.
    """

    def __init__(self, protocol: str = "native") -> None:
        """Takes a protocol.

        Args:
            protocol: A name in :data:`segearth.evaluation.protocols.PROTOCOLS`, which decides how masks are compared.
                Register the data set with the same protocol, since it also decides which questions are asked.

        Raises:
            UnknownNameError: There is no such protocol.
        """
        self.protocol = get_protocol(protocol)
        self.scorer = SegmentationScorer()
        self.records: list[SampleRecord] = []

    def reset(self) -> None:
        """Deletes all records."""
        self.records = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Scores a batch.

        Args:
            inputs: What :class:`segearth.integrations.detectron2.catalog.QuestionMapper` made.
            outputs: Each with ``instances``; ``presence`` and ``frame_mask`` are used where there are any.

        Raises:
            DatasetError: Image, target and prediction differ in size.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            question = Question(entry["question"], entry["mask"].numpy(), task=entry["task"], kind=entry["kind"])
            image = entry["image"].permute(1, 2, 0).numpy()
            sample = Sample(entry["image_id"], image, meta={"source": entry["source"]})
            answer = _as_answer(question.text, output)
            self.records.append(self.scorer.score(entry["question_id"], question, answer, sample, self.protocol))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Joins the records of all processes.

        Returns:
            ``{"segearth": {"gIoU": …, "cIoU": …, "Pr@0.5": …, …}}`` with values in [0, 1]. N-acc is only there if some
            target is empty, T-acc only if some is not. ``None`` on all processes but the main one.

        Raises:
            DatasetError: Nothing was scored, or a question was scored twice.
        """
        shards = comm.gather(self.records)
        if not comm.is_main_process():
            return None
        metrics = compute_metrics(merge_records(shards))
        numbers = {"gIoU": metrics.giou, "cIoU": metrics.ciou}
        numbers |= {f"Pr@{threshold}": share for threshold, share in metrics.precision.items()}
        accuracies = {"N-acc": metrics.n_acc, "T-acc": metrics.t_acc}
        return {"segearth": numbers | {name: share for name, share in accuracies.items() if share is not None}}


def _as_answer(question: str, output: dict[str, Any]) -> Segmentation:
    instances = output["instances"]
    found = len(instances) > 0
    return Segmentation(
        question,
        mask=instances.pred_masks.any(0).cpu().numpy(),
        score=float(instances.scores.max()) if found else 0.0,
        present=found,
        presence=output.get("presence", float(found)),
        frame_mask=output.get("frame_mask"),
    )
