"""How the questions of a batch are laid out: by image, side by side.

All of it is decided on the host from numbers that are there anyway, so no device is waited for.

Shapes: ``B`` images, ``N`` questions, ``L`` tokens of the longest, ``Q`` most questions of an image, ``W`` most tokens
of an image's questions together, ``P`` tokens of the prompt before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def query_slots(image_index: Tensor) -> Tensor:
    """Returns each question's place among its image's questions: ``[0, 0, 1, 1, 1]`` → ``[0, 1, 0, 1, 2]``."""
    counts = torch.bincount(image_index)
    first = counts.cumsum(0) - counts
    return torch.arange(len(image_index)) - first[image_index]


def pack(values: Tensor, image_index: Tensor, num_images: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Lays questions out by image.

    Args:
        values: ``(N, C)``.
        image_index: ``(N,)`` ascending, on the host.
        num_images: ``B``.

    Returns:
        ``(B, Q, C)``, empty slots zero; and the index that takes ``(N, C)`` out of it again.
    """
    slots = query_slots(image_index)
    place = (image_index.to(values.device, non_blocking=True), slots.to(values.device, non_blocking=True))
    packed = values.new_zeros(num_images, int(slots.max()) + 1, values.shape[-1])
    return packed.index_put(place, values), place


@dataclass
class TokenLayout:
    """Questions' tokens in one row an image, without padding between them.

    Attributes:
        question: ``(T,)`` which question each token is of.
        token: ``(T,)`` its place in that question.
        image: ``(T,)`` its row.
        column: ``(T,)`` its place in that row.
        segment: ``(B, W)`` which question a place holds; -1 for none.
        offset: ``(B, W)`` the place's token in its question.
    """

    question: Tensor
    token: Tensor
    image: Tensor
    column: Tensor
    segment: Tensor
    offset: Tensor

    def pack(self, values: Tensor) -> Tensor:
        """Lays ``(N, L, D)`` out as ``(B, W, D)``, zero where no token is."""
        packed = values.new_zeros(*self.segment.shape, values.shape[-1])
        return packed.index_put((self.image, self.column), values[self.question, self.token])

    def unpack(self, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        """Takes ``(N, L, D)`` with ``(N, L)`` of ``shape`` out of ``(B, W, D)``, zero at padding."""
        values = packed.new_zeros(*shape, packed.shape[-1])
        return values.index_put((self.question, self.token), packed[self.image, self.column])

    def to(self, device: torch.device | str) -> TokenLayout:
        """Returns a copy on ``device``."""
        return TokenLayout(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})

    def visible(self, prompt: int) -> Tensor:
        """Which of the prompt's and the row's tokens each of the row's tokens sees.

        It sees the prompt, and of its own question what lies before it, itself included.

        Args:
            prompt: ``P``.

        Returns:
            ``(B, W, P + W)`` bool.
        """
        width = self.segment.shape[1]
        before = torch.ones(width, width, dtype=torch.bool, device=self.segment.device).tril()
        own = (self.segment[:, :, None] == self.segment[:, None]) & before
        return torch.cat([own.new_ones(len(own), width, prompt), own], 2)


def token_layout(lengths: Sequence[int], image_index: Tensor, num_images: int) -> TokenLayout:
    """Lays questions' tokens out, the questions of an image one after the other.

    Args:
        lengths: Tokens of each of the ``N`` questions.
        image_index: ``(N,)`` ascending, on the host.
        num_images: ``B``.
    """
    count = torch.tensor(lengths)
    question = torch.repeat_interleave(torch.arange(len(count)), count)
    first = count.cumsum(0) - count
    token = torch.arange(len(question)) - first[question]
    image = image_index[question]
    totals = torch.zeros(num_images, dtype=torch.long).index_add(0, image_index, count)
    column = torch.arange(len(question)) - (totals.cumsum(0) - totals)[image]
    segment = torch.full((len(totals), int(totals.max())), -1)
    segment[image, column] = question
    offset = torch.zeros_like(segment)
    offset[image, column] = token
    return TokenLayout(question, token, image, column, segment, offset)
