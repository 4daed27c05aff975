"""Asks a segmenter about tiles, and makes of its answers evidence that can be blended, and decided once for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from segearth.geo.tiling import UNSEEN
from segearth.geo.windows import Window
from segearth.inference.deciding import logit
from segearth.segmenter import RawAnswer, Segmenter, facts_of
from segearth.structures import Segmentation, Task
from segearth.utils.threads import one_ahead

CERTAIN = 10.0  # logit that stands for the yes or no of a segmenter that gives masks alone: a probability of 0.99995

# A tile with its picture, ``uint8`` RGB ``(h, w, 3)``.
Picture = tuple[Window, np.ndarray]


class TilePass:
    """One pass over tiles, in which all questions are asked of each.

    Attributes:
        presence: For each question the highest presence of all tiles so far, in [0, 1]: a thing is in the scene if it
            is in one of its tiles.
        unknown_words: For each question the words that the segmenter does not know.
    """

    def __init__(self, segmenter: Segmenter, questions: Sequence[str], tasks: Sequence[Task], batch_size: int) -> None:
        """Prepares a pass.

        Args:
            segmenter: Asked about ``batch_size`` tiles at a time.
            questions: Asked of every tile.
            tasks: One for each question.
            batch_size: Tiles at a time.
        """
        self.segmenter, self.batch_size = segmenter, batch_size
        self.questions, self.tasks = list(questions), list(tasks)
        self.presence = np.zeros(len(self.questions))
        self.unknown_words: list[tuple[str, ...]] = [()] * len(self.questions)

    def over(self, rows: Iterable[Iterable[Picture]]) -> Iterator[tuple[Window, np.ndarray]]:
        """Asks tile after tile.

        Args:
            rows: Tiles in groups; a batch never holds tiles of two groups. So a pass that is begun again at a later
                group gives the same numbers to the last bit, which depend on what else is in a batch.

        Yields:
            Each tile with its evidence, float32 ``(Q, h, w)``, see :func:`evidence_of`.
        """
        # While one batch is computed, a thread reads and decodes the tiles of the next.
        for batch in one_ahead(batch for row in rows for batch in _batches(row, self.batch_size)):
            self.segmenter.set_images([picture for _, picture in batch])
            count = len(self.questions)
            about = [number for number in range(len(batch)) for _ in range(count)]
            answers = evidence_of(self.segmenter, self.questions * len(batch), self.tasks * len(batch), about)
            for number, (window, _) in enumerate(batch):
                of_tile = answers[number * count : (number + 1) * count]
                self.presence = np.maximum(self.presence, [answer.presence for answer in of_tile])
                self.unknown_words = [answer.unknown_words for answer in of_tile]
                yield window, np.stack([answer.logits for answer in of_tile])


def evidence_of(
    segmenter: Segmenter, questions: Sequence[str], tasks: Sequence[Task], about: Sequence[int]
) -> list[RawAnswer]:
    """Asks without deciding, and puts what mask and presence say into one number a pixel.

    A pixel belongs to the answer as far as mask and presence both say so: its logit is cut at the logit of presence,
    counted from the threshold. Else a tile without the thing, whose mask has learned nothing of absences, would put its
    best guess into the scene as soon as any other tile has the thing.

    Args:
        segmenter: Images are set.
        questions: As for :meth:`segearth.segmenter.Segmenter.predict`.
        tasks: One for each question.
        about: For each the number of its image.

    Returns:
        With logits that are evidence; those of a segmenter that gives masks alone are :data:`CERTAIN` or its negative.
    """
    threshold = facts_of(segmenter).deciding.presence_threshold
    if hasattr(segmenter, "predict_raw"):
        raw: list[RawAnswer] = segmenter.predict_raw(questions, task=tasks, about=about)
        return [each._replace(logits=cut_at_presence(each.logits, each.presence, threshold)) for each in raw]
    decided = segmenter.predict(questions, task=tasks, about=about, return_logits=True)
    return [RawAnswer(_evidence(each, threshold), each.presence, each.unknown_words) for each in decided]


def _evidence(answer: Segmentation, threshold: float) -> np.ndarray:
    if answer.logits is None:
        return np.where(answer.mask, np.float32(CERTAIN), np.float32(-CERTAIN))
    return cut_at_presence(answer.logits, answer.presence, threshold)


def cut_at_presence(logits: np.ndarray, presence: float, threshold: float) -> np.ndarray:
    """Lowers logits ``(h, w)`` to that of presence, counted from its threshold, and lifts them to ``UNSEEN``.

    Infinity would become NaN where pixels are resampled, and half precision makes it of all that is below -65504.
    """
    return np.minimum(logits, np.float32(logit(presence) - logit(threshold))).clip(UNSEEN)


def _batches(row: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    for tile in row:
        batch.append(tile)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
