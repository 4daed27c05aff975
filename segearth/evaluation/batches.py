"""Images in batches of one frame size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from segearth.structures import Sample

WAITING_BYTES = 1 << 28  # 256 MiB of images and targets that wait for others of their frame size


def in_batches(
    samples: Iterable[Sample], frame_size: Callable[[int, int], tuple[int, int]], size: int
) -> Iterator[list[Sample]]:
    """Groups images that can be encoded in one pass; every image is in exactly one batch.

    An image waits until there are enough of its frame size. When all that wait take more than ``WAITING_BYTES``, those
    of the frame size that takes most become a batch, however few they are.

    Args:
        samples: Read one after the other, no further than the next full batch needs.
        frame_size: Gives the size at which the model sees an image of ``(H, W)``.
        size: Most images of a batch.
    """
    waiting: dict[tuple[int, int], list[Sample]] = {}
    held: Counter[tuple[int, int]] = Counter()
    for sample in samples:
        height, width = sample.image.shape[:2]
        frame = frame_size(height, width)
        waiting.setdefault(frame, []).append(sample)
        held[frame] += _bytes(sample)
        if len(waiting[frame]) >= size:
            del held[frame]
            yield waiting.pop(frame)
        while held.total() > WAITING_BYTES:
            ((largest, _),) = held.most_common(1)
            del held[largest]
            yield waiting.pop(largest)
    yield from waiting.values()


def _bytes(sample: Sample) -> int:
    before = 0 if sample.before is None else sample.before.nbytes
    return before + sample.image.nbytes + sum(q.mask.nbytes for q in sample.questions if q.mask is not None)
