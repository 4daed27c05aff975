"""Decides which images a process sees at which step.

This depends on the seed and the step's number only, not on earlier steps, so that a run can be resumed at any step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from segearth.utils.seeds import rng_for

Frame = tuple[int, int]
Key = tuple[int, int]


class StepSampler(Sampler[list[Key]]):
    """Gives the micro-batches of one process, from a given optimiser step on; the images of each share a frame size.

    A tensor holds images of one size only. Images could be squeezed or padded to one size, but then the model would
    learn from images unlike those it gets in use. So images are batched with others of the same frame size. The images
    of each frame size form an endless stream, epoch after epoch, with a new order in every epoch. A micro-batch takes
    the next images of one stream. The streams take turns in proportion to their number of images, so at any time all
    images have been seen about equally often. What the ``n``-th micro-batch holds can be computed directly.

    If a frame size has fewer images than a micro-batch, the batch repeats them, and the stream's turn comes less often.
    """

    def __init__(
        self, frames: Sequence[Frame], global_batch: int, micro_batch: int, first_step: int, last_step: int, rank: int,
        world: int, seed: int,
    ) -> None:  # fmt: skip
        """Plans the order in which streams take turns.

        Args:
            frames: Frame size ``(h, w)`` of every image.
            global_batch: Images per optimiser step over all processes, a multiple of ``micro_batch * world``.
            micro_batch: Images per process and forward pass.
            first_step: First optimiser step.
            last_step: End of the optimiser steps, exclusive.
            rank: Number of this process.
            world: Number of processes.
            seed: Decides the order of images.
        """
        self.micro_batch, self.seed = micro_batch, seed
        self.first_step, self.last_step, self.rank, self.world = first_step, last_step, rank, world
        self.passes = global_batch // micro_batch
        self.frames, stream = np.unique(np.array(frames), axis=0, return_inverse=True)
        self.members = [np.flatnonzero(stream.ravel() == number) for number in range(len(self.frames))]
        # A round has as many micro-batches as there are images, and each stream has as many turns in it as it has
        # images. To spread a stream's n turns evenly, turn k comes at the fraction (k + 1/2) / n of the round.
        counts = [len(images) for images in self.members]
        due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        turns = np.concatenate([np.arange(count) for count in counts])
        order = np.argsort(due, kind="stable")
        self.stream_of, self.turn_of = np.repeat(np.arange(len(counts)), counts)[order], turns[order]
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * (self.passes // self.world)

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.first_step, self.last_step):
            # The micro-batches of a step may run in any order. Sorted by stream, the processes run equal frame sizes
            # at the same time, and none has to wait for another with a larger frame.
            numbers = sorted(range(step * self.passes, (step + 1) * self.passes), key=self._stream)
            for number in numbers[self.rank :: self.world]:
                yield self._keys(number)

    def _stream(self, number: int) -> int:
        return int(self.stream_of[number % len(self.stream_of)])

    def _keys(self, number: int) -> list[Key]:
        """Returns ``(epoch, image)`` pairs of micro-batch ``number``, counted from step 0 over all processes."""
        stream = self._stream(number)
        rounds, turn = divmod(number, len(self.stream_of))
        images = self.members[stream]
        first = (rounds * len(images) + int(self.turn_of[turn])) * self.micro_batch
        keys = []
        for position in range(first, first + self.micro_batch):
            epoch, k = divmod(position, len(images))
            keys.append((epoch, int(images[self._order(stream, epoch)[k]])))
        return keys

    def _order(self, stream: int, epoch: int) -> np.ndarray:
        cached = self._orders.get(stream)
        if cached is None or cached[0] != epoch:
            height, width = (int(side) for side in self.frames[stream])
            order = rng_for(self.seed, epoch, height, width).permutation(len(self.members[stream]))
            cached = self._orders[stream] = epoch, order
        return cached[1]
