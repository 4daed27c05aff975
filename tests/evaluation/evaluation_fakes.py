"""A made-up split and predictors of the public predictor's shape."""

from __future__ import annotations

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.evaluation.examples import Extremes, ScoredExample
from segearth.evaluation.protocols import PROTOCOLS
from segearth.evaluation.records import SampleRecord
from segearth.evaluation.results import EvaluationResult, ScorerResult
from segearth.evaluation.scorers import SCORERS
from segearth.structures import Question, Sample, Segmentation

COLOURS = {"red roof": 200, "grey road": 120, "green field": 60}


class Patches(SegmentationDataset):
    """Each image holds rectangles of grey levels; a question names one; some name one that is absent."""

    name = "patches"

    def __init__(self, count=6, split="test", seed=0):
        self.split, self.samples = split, [self._make(i, seed) for i in range(count)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    @staticmethod
    def _make(index, seed):
        rng = np.random.default_rng([seed, index])
        height, width = (40, 60) if index % 2 else (48, 32)
        image = np.zeros((height, width, 3), np.uint8)
        levels = list(COLOURS.values())
        present = levels if index % 3 else levels[:2]
        for row, level in enumerate(present):
            top, left = row * height // 3, int(rng.integers(0, width // 2))
            image[top : top + int(rng.integers(4, height // 3)), left : left + int(rng.integers(4, width // 2))] = level
        questions = [
            Question(text, image[..., 0] == level, kind="class" if level in present else "absent", id=f"{index}-{text}")
            for text, level in COLOURS.items()
        ]
        return Sample(f"image{index}", image, questions, meta={"source": "even" if index % 2 else "odd"})


class Reading(Patches):
    """Notes which images were read."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


class PerfectPredictor:
    """Reads the answer off the image; counts its calls."""

    def __init__(self):
        self.encoded, self.batches, self.asked, self.tasks = 0, [], [], []

    def set_image(self, image):
        self.set_images([image])

    def set_images(self, images):
        self.images, self.encoded = images, self.encoded + len(images)
        self.batches.append(len(images))

    def predict(self, questions, *, task="referring", about=None):
        """Notes the questions of each image by themselves."""
        assert isinstance(questions, list)
        assert len(task) == len(about) == len(questions)
        for number in range(len(self.images)):
            self.asked.append([q for q, own in zip(questions, about, strict=True) if own == number])
        self.tasks.extend(task)
        return [self._answer(question, self.images[own]) for question, own in zip(questions, about, strict=True)]

    def _answer(self, question, image):
        mask = image[..., 0] == COLOURS[question]
        return Segmentation(question, mask, 0.9, bool(mask.any()), 0.75)


class Shifted:
    """Right but for a shift of two pixels."""

    def _answer(self, question, image):
        answer = super()._answer(question, image)
        answer.mask = np.roll(answer.mask, 2, axis=(0, 1))
        return answer


class ShiftedPredictor(Shifted, PerfectPredictor):
    """Images of any sizes together."""


class PerfectBatches(PerfectPredictor):
    """Takes images of one frame size together; landscapes and portraits have different ones."""

    def frame_size(self, height, width):
        return (2, 3) if width > height else (3, 2)

    def set_images(self, images):
        assert len({self.frame_size(*image.shape[:2]) for image in images}) == 1
        super().set_images(images)


class ShiftedBatches(Shifted, PerfectBatches):
    """Images of one frame size together."""


def counted(id, intersection, union, target, predicted, image_id="", question="roofs", **facts):
    """A record made of its numbers."""
    facts = {"task": "referring", "kind": "", "source": "", **facts}
    return SampleRecord(id, image_id or id, question, **facts, intersection=intersection, union=union,
                        target_area=target, predicted_area=predicted)  # fmt: skip


def worked_result(controls=True):
    """Four samples about three images, worked by hand in the documentation: I/U is 8/10, 2/4, 1 (both empty) and 0/3.

    Of the controls, "everything" is right on the first sample alone (10/10, 3/10, 0/10, 0/10), "nothing" on what is
    absent (0/10, 0/3, 1, 1).
    """
    class_, absent = {"kind": "class", "source": "naip"}, {"kind": "absent", "source": "sentinel"}
    model = {"presence": 0.75, "score": 0.9}
    records = [
        counted("a", 8, 10, 10, 8, image_id="image0", question="the roofs", **class_, **model),
        counted("b", 2, 4, 3, 3, image_id="image0", question="the roads", **class_, **model),
        counted("c", 0, 0, 0, 0, image_id="image1", question="ships", **absent, **model),
        counted("d", 0, 3, 0, 3, image_id="image2", question="cars", **absent, **model),
    ]
    names, images = "abcd", [r.image_id for r in records]
    everything = [(10, 10, 10, 10), (3, 10, 3, 10), (0, 10, 0, 10), (0, 10, 0, 10)]
    nothing = [(0, 10, 10, 0), (0, 3, 3, 0), (0, 0, 0, 0), (0, 0, 0, 0)]
    answers = {"everything": everything, "nothing": nothing} if controls else {}
    return EvaluationResult(
        dataset="patches",
        split="test",
        protocol=PROTOCOLS["native"],
        seed=5,
        by_scorer={
            "segmentation": ScorerResult(
                SCORERS["segmentation"],
                records,
                controls={
                    name: [
                        counted(i, *counts, image_id=image)
                        for i, image, counts in zip(names, images, rows, strict=True)
                    ]
                    for name, rows in answers.items()
                },
                control_rules={name: f"the rule of {name}" for name in answers},
                seed=5,
            )
        },
        extremes=Extremes(2, [pictured(records[0])], [pictured(records[3])]),
        seconds=1.5,
        without_target=2,
    )


def pictured(record):
    """A grey image whose target is its left half, whose prediction is its upper half."""
    target, prediction = np.zeros((2, 90, 90), bool)
    target[:, :45], prediction[:45] = True, True
    return ScoredExample(record, np.full((90, 90, 3), 100, np.uint8), target, prediction)
