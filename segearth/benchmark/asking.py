"""Times any segmenter through its public methods: setting an image, and asking questions about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from segearth.benchmark.measure import alternate
from segearth.segmenter import ImageInput, Segmenter, facts_of


def time_segmenter(
    segmenter: Segmenter, image: ImageInput, questions: Sequence[str], counts: Sequence[int] = (1, 8), repeats: int = 3
) -> dict[str, Any]:
    """Times a segmenter, preprocessing and deciding included.

    The image is set again before each count of questions, so that nothing a segmenter keeps of earlier answers makes it
    look faster.

    Args:
        segmenter: On the device to measure, which its ``facts`` name.
        image: Which image to ask about.
        questions: Asked in turn, from the first again where there are fewer than are asked.
        counts: How many questions to ask about the image.
        repeats: Counted rounds; medians are taken.

    Returns:
        ``"set_image"``: seconds to set the image; ``"predict"``: by count, seconds to set it and to answer so many
        questions.
    """
    texts = {count: [questions[i % len(questions)] for i in range(count)] for count in counts}

    def ask(count: int) -> None:
        segmenter.set_image(image)
        segmenter.predict(texts[count])

    works: dict[int, Callable[[], Any]] = {0: partial(segmenter.set_image, image)}
    works |= {count: partial(ask, count) for count in counts}
    rounds = alternate(works, repeats, torch.device(facts_of(segmenter).device))
    return {"set_image": median(rounds[0]), "predict": {str(count): median(rounds[count]) for count in counts}}
