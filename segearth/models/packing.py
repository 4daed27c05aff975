"""How the questions of a batch are laid out: by image, side by side, what they share once.

All of it is decided on the host from numbers that are there anyway, so no device is waited for.

Shapes: ``B`` images, ``N`` questions, ``L`` tokens of the longest, ``Q`` most questions of an image, ``W`` places of a
row, ``P`` tokens of the prompt up to and including the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segearth.utils.devices import to_device


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
    place = (to_device(image_index, values.device), to_device(slots, values.device))
    packed = values.new_zeros(num_images, int(slots.max()) + 1, values.shape[-1])
    return packed.index_put(place, values), place


@dataclass
class TokenLayout:
    """Prompts as a tree in one row an image: what they share is there once, and each token sees its ancestors.

    A row holds the prompt up to and including the image, the words that prompts of one task open with, then what each
    question has for itself, without padding between them. The openings of all tasks asked for are in every row.

    Attributes:
        question: ``(T,)`` which question each token is of.
        token: ``(T,)`` its place in what follows the question's image.
        image: ``(T,)`` its row.
        column: ``(T,)`` its place in that row; the same for the questions that share it.
        source: From which question's token each of the ``U`` places that have to be read is filled. Four tensors
            ``(U,)``: the question, its token, the row, and the place in the row. The words that several questions open
            with are filled into every row from the first of these questions.
        segment: ``(B, W)`` the part of the tree that a place belongs to: 0 for the prompt; -1 where nothing is.
        parent: ``(B, W)`` the part that this one hangs on.
        position: ``(B, W)`` how many tokens stand before this one when the prompt is read alone.
        prompt: ``P``.
        start: The first place that has to be read; those before it are remembered.
        openings: How many tokens each opening has, by name and in the order of the row.
    """

    question: Tensor
    token: Tensor
    image: Tensor
    column: Tensor
    source: tuple[Tensor, ...]
    segment: Tensor
    parent: Tensor
    position: Tensor
    prompt: int
    start: int
    openings: dict[str, int]

    def pack(self, values: Tensor) -> Tensor:
        """Lays ``(N, L, D)`` out as what has to be read after the prompt, zero where no token is.

        Returns:
            ``(B, W - max(P, start), D)``.
        """
        question, token, image, column = self.source
        first = max(self.prompt, self.start)
        packed = values.new_zeros(len(self.segment), self.segment.shape[1] - first, values.shape[-1])
        return packed.index_put((image, column - first), values[question, token])

    def unpack(self, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        """Takes ``(N, L, D)`` with ``(N, L)`` of ``shape`` out of all that follows the prompt, zero at padding.

        Args:
            packed: ``(B, W - P, D)``.
            shape: ``(N, L)``.
        """
        values = packed.new_zeros(*shape, packed.shape[-1])
        return values.index_put((self.question, self.token), packed[self.image, self.column - self.prompt])

    def to(self, device: torch.device | str) -> TokenLayout:
        """Returns a copy on ``device``."""

        def move(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(move(part) for part in value)
            return to_device(value, device) if isinstance(value, Tensor) else value

        return TokenLayout(**{name: move(value) for name, value in vars(self).items()})

    def visible(self) -> Tensor:
        """Which of a row's tokens each of those that have to be read sees: ``(B, W - start, W)`` bool.

        It sees what is before it in its own part and in the parts that this one hangs on, itself included.
        """
        segment, parent, position = (t[:, self.start :, None] for t in (self.segment, self.parent, self.position))
        of = self.segment[:, None]
        return ((of == 0) | (of == parent) | (of == segment)) & (self.position[:, None] <= position)


def token_layout(
    lengths: Sequence[int],
    openings: Sequence[tuple[str, int]],
    image_index: Tensor,
    num_images: int,
    prompt: int,
    remembered: Mapping[str, int] | None = None,
) -> TokenLayout:
    """Lays prompts out, those of an image one after the other.

    Args:
        lengths: Tokens of each of the ``N`` prompts after its image.
        openings: Name of the words that each of them opens with, and how many of its tokens these are.
        image_index: ``(N,)`` ascending, on the host.
        num_images: ``B``.
        prompt: ``P``.
        remembered: Openings that need not be read again, nor the prompt; ``None`` where all is read.
    """
    known = dict(remembered or {})
    new = {name: size for name, size in openings if name not in known}
    trunk = known | new
    starts, end = {}, prompt
    for name, size in trunk.items():
        starts[name], end = end, end + size
    names = list(trunk)
    part = torch.tensor([names.index(name) + 1 for name, _ in openings], dtype=torch.long)
    opening = torch.tensor([size for _, size in openings], dtype=torch.long)
    opens_at = torch.tensor([starts[name] for name, _ in openings], dtype=torch.long)

    count = torch.tensor(lengths, dtype=torch.long)
    question = torch.repeat_interleave(torch.arange(len(count)), count)
    token = torch.arange(len(question)) - (count.cumsum(0) - count)[question]
    image = image_index[question]
    own = token >= opening[question]
    totals = torch.zeros(num_images, dtype=torch.long).index_add(0, image_index, count - opening)
    place = own.cumsum(0) - 1 - (totals.cumsum(0) - totals)[image]
    column = torch.where(own, end + place, opens_at[question] + token)

    width = end + max(totals.tolist())
    segment = torch.full((num_images, width), -1)
    parent = torch.zeros_like(segment)
    position = torch.full_like(segment, prompt)  # so that padding sees something: softmax over nothing is NaN
    segment[:, :prompt], position[:, :prompt] = 0, torch.arange(prompt)
    source = [(question[own], token[own], image[own], column[own])]
    for i, (name, size) in enumerate(trunk.items(), 1):
        there = slice(starts[name], starts[name] + size)
        segment[:, there], position[:, there] = i, prompt + torch.arange(size)
        if name in new:
            first = next(q for q, (other, _) in enumerate(openings) if other == name)
            where = torch.cartesian_prod(torch.arange(num_images), torch.arange(size))
            row, at = where.unbind(1)
            source.append((torch.full_like(at, first), at, row, starts[name] + at))
    row, at = image[own], column[own]
    segment[row, at] = len(trunk) + 1 + question[own]
    parent[row, at] = part[question[own]]
    position[row, at] = prompt + token[own]
    start = 0 if remembered is None else prompt + sum(known.values())
    gathered = tuple(torch.cat(each) for each in zip(*source, strict=True))
    return TokenLayout(question, token, image, column, gathered, segment, parent, position, prompt, start, trunk)
