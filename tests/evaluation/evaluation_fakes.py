"""A made-up split and predictors of the public predictor's shape."""

from __future__ import annotations

import numpy as np

from segearth.data.base import SegmentationDataset
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


class PerfectPredictor:
    """Reads the answer off the image; counts its calls."""

    def __init__(self):
        self.set_images, self.asked, self.tasks = 0, [], []

    def set_image(self, image):
        self.image, self.set_images = image, self.set_images + 1

    def predict(self, questions, *, task="referring", answer=False):
        assert isinstance(questions, list)
        assert len(task) == len(questions)
        self.asked.append(questions)
        self.tasks.extend(task)
        return [self._answer(question) for question in questions]

    def _answer(self, question):
        mask = self.image[..., 0] == COLOURS[question]
        return Segmentation(question, mask, 0.9, bool(mask.any()), 0.75)


class ShiftedPredictor(PerfectPredictor):
    """Right but for a shift of two pixels."""

    def _answer(self, question):
        answer = super()._answer(question)
        answer.mask = np.roll(answer.mask, 2, axis=(0, 1))
        return answer
