"""A split that asks for masks, boxes, words and choices alike, and a model that answers all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.structures import Boxes, Choices, Question, Region, Sample, Segmentation, Text

CLASSES = ("field", "dense residential", "residential", "river")


class Mixed(SegmentationDataset):
    """Each image shows a bright block of 8 by 6 pixels, one pixel further right in each."""

    name = "mixed"

    def __init__(self, count=4, split="test", tasks=None):
        self.split = split
        self.samples = [self._make(i) for i in range(count)]
        if tasks:
            for sample in self.samples:
                sample.questions = [question for question in sample.questions if question.task in tasks]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    @staticmethod
    def _make(i):
        image = np.zeros((20, 30, 3), np.uint8)
        image[2:8, 4 + i : 12 + i] = 255
        asked = [
            ("the block", "referring", None),
            ("find blocks", "detection", Boxes(((4 + i, 2, 12 + i, 8),))),
            ("describe it", "caption", Text(("a bright block", "one white block"))),
            ("is there a block?", "vqa", Text(("yes",))),
            ("which class?", "classification", Choices(CLASSES, (CLASSES[i % 2],))),
            ("describe the blocks", "grounding_description", Boxes(((4 + i, 2, 12 + i, 8),))),
        ]
        questions = [
            Question(f"{text} {i}", task=task, id=f"{i}-{task}", target=target) for text, task, target in asked
        ]
        questions[0] = replace(questions[0], mask=image[..., 0] > 0, target=None)
        questions[-1].answer = "a bright block"
        return Sample(f"image{i}", image, questions)


class AllKnowing:
    """Reads the block off the image; of the class it always says the same."""

    def set_image(self, image):
        self.set_images([image])

    def set_images(self, images):
        self.images, self.worded = images, []

    def predict(self, questions, *, task, about, answer=False):
        words = {"caption": "A bright block.", "vqa": "Yes.", "classification": "It is a dense residential area",
                 "grounding_description": "A bright block."}  # fmt: skip
        self.worded.append((sorted(set(task)), answer))
        return [
            answered(question, self.images[number][..., 0] > 0, words.get(each))
            for question, each, number in zip(questions, task, about, strict=True)
        ]


def answered(question, mask, words=None, regions=None):
    return Segmentation(question, mask, 0.75, True, 0.75, answer=words, given_regions=regions)


def region(box, score=None):
    """A filled region; box as ``(left, top, right, bottom)``."""
    left, top, right, bottom = box
    return Region(np.ones((bottom - top, right - left), bool), left, top, score)
