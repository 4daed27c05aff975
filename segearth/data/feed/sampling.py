"""Which images a process sees at which step. It is known from the step alone, so that a run can go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from segearth.utils.seeds import rng_for

Frame = tuple[int, int]
Key = tuple[int, int]


class StepSampler(Sampler[list[Key]]):
    """Micro-batches of one process from a given optimiser step on, each of images that share a frame.

    A tensor holds images of one size only. Instead of squeezing or padding images to fit, which a model in use never
    sees, images are batched with their like. The images of each frame form a stream without end, epoch after epoch,
    every epoch in a new order; a micro-batch takes the next few images of one stream. Streams take turns, spread
    evenly, in proportion to their images. Thus at any time all images have been seen about equally often, and what the
    ``n``-th micro-batch holds can be computed without those before it.

    A frame with fewer images than a micro-batch shows them more than once in it, and comes round the less often.
    """

    def __init__(
        self, frames: Sequence[Frame], global_batch: int, micro_batch: int, first_step: int, last_step: int, rank: int,
        world: int, seed: int,
    ) -> None:  # fmt: skip
        """Plans whose turn it is.

        Args:
            frames: ``(h, w)`` of every image.
            global_batch: Images of an optimiser step over all processes, a multiple of ``micro_batch * world``.
            micro_batch: Images of a process and pass.
            first_step: First step drawn.
            last_step: End of the steps, exclusive.
            rank: Number of this process.
            world: Number of processes.
            seed: Decides every order.
        """
        self.micro_batch, self.seed = micro_batch, seed
        self.first_step, self.last_step, self.rank, self.world = first_step, last_step, rank, world
        self.passes = global_batch // micro_batch
        kinds = np.array(frames)
        self.frames, stream = np.unique(kinds, axis=0, return_inverse=True)
        self.members = [np.flatnonzero(stream.ravel() == number) for number in range(len(self.frames))]
        # In as many micro-batches as there are images each stream gets as many turns as it has images. Its k-th of n
        # turns is due at (k + 1/2) / n of the way.
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
            # The micro-batches of a step may run in any order: processes that run equal frames side by side do not
            # wait for the one with the larger frame.
            numbers = sorted(range(step * self.passes, (step + 1) * self.passes), key=self._stream)
            for number in numbers[self.rank :: self.world]:
                yield self._keys(number)

    def _stream(self, number: int) -> int:
        return int(self.stream_of[number % len(self.stream_of)])

    def _keys(self, number: int) -> list[Key]:
        """The ``(epoch, image)`` of the ``number``-th micro-batch since the start, over all processes."""
        stream = self._stream(number)
        rounds, place = divmod(number, len(self.stream_of))
        images = self.members[stream]
        first = (rounds * len(images) + int(self.turn_of[place])) * self.micro_batch
        keys = []
        for position in range(first, first + self.micro_batch):
            epoch, k = divmod(position, len(images))
            keys.append((epoch, int(images[self._order(stream, epoch)[k]])))
        return keys

    def _order(self, stream: int, epoch: int) -> np.ndarray:
        known = self._orders.get(stream)
        if known is None or known[0] != epoch:
            height, width = (int(side) for side in self.frames[stream])
            order = rng_for(self.seed, epoch, height, width).permutation(len(self.members[stream]))
            known = self._orders[stream] = epoch, order
        return known[1]
