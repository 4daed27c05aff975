"""From what a completion points at to its mask, as the rewards ask for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segearth.prompting.answers import Instance
from segearth.prompting.frames import clip_to_image
from segearth.prompting.promptable import PromptableSegmenter, joined, without_doubles


class GroupMasks:
    """Segments what answers point at, and shows each image to the segmenter once for all answers of a group.

    trl hands the answers of a group one after another. A segmenter's encoder takes most of its time, so to encode the
    image again for each answer would make a step many times longer. It is what ``masks_of`` of
    :func:`segearth.rl.rewards.scoring.score_batch` takes.

    Attributes:
        images: How many times an image was shown.
    """

    def __init__(self, segmenter: PromptableSegmenter, image_of: Callable[[str], np.ndarray]) -> None:
        """Takes a segmenter.

        Args:
            segmenter: Frozen; keeps one image at least.
            image_of: From a row's image key to the image, ``uint8`` RGB ``(H, W, 3)``.
        """
        self.segmenter, self.image_of, self.images = segmenter, image_of, 0
        self._key: str | None = None
        self._size = (0, 0)

    def __call__(self, key: str, instances: tuple[Instance, ...]) -> np.ndarray:
        """Returns the mask of all things together, as :class:`segearth.prompting.prompted.PromptedSegmenter` makes it.

        Args:
            key: Names the image.
            instances: In its pixels; they may lie outside.

        Returns:
            Boolean ``(H, W)``.

        Raises:
            SegEarthError: The image does not open or the segmenter fails: the answer's reward is the floor.
        """
        if key != self._key:
            self._key = None  # if the image does not open, the next answer must not be scored on the one before
            image = self.image_of(key)
            self.segmenter.set_image(image)
            self.images += 1
            self._key, self._size = key, (image.shape[0], image.shape[1])
        cut = [clip_to_image(one, *self._size) for one in instances]
        asked = without_doubles([one for one in cut if one is not None])
        return joined(self.segmenter.masks(asked) if asked else [], *self._size).mask
