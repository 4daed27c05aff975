"""Packs the prompts of a batch: the questions of an image share one row of the language model, without padding.

Where each token goes is decided on the host, from numbers that are there already. Reading them back from a GPU would
make the host wait until the GPU has done all its work.

Shapes: ``B`` images, ``N`` questions, ``L`` tokens of the longest, ``Q`` most questions of an image, ``W`` columns of a
row, ``P`` tokens of the prefix (the words before the image, and the image's tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segearth.utils.devices import to_device


def query_slots(image_index: Tensor) -> Tensor:
    """Numbers each question among those of its image: ``[0, 0, 1, 1, 1]`` → ``[0, 1, 0, 1, 2]``."""
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
        ``packed``, ``(B, Q, C)`` with empty slots zero, and the index for which ``packed[index]`` is ``values`` again.
    """
    slots = query_slots(image_index)
    index = (to_device(image_index, values.device), to_device(slots, values.device))
    packed = values.new_zeros(num_images, int(slots.max()) + 1, values.shape[-1])
    return packed.index_put(index, values), index


@dataclass
class PackedRows:
    """Where each token of ``N`` prompts stands when the prompts of an image are packed into one row.

    A row is made of segments: the prefix (0), the opening of each task (1, 2, …), then what each question has for
    itself. They form a tree: an opening follows the prefix, and a question follows the opening of its task. A token
    sees its own segment and those that this one follows, so that it sees what it would see in a row of its own. All
    rows have the openings of all tasks asked for, which keeps the columns of all rows alike.

    Attributes:
        question: ``(T,)`` which question each of the ``T`` tokens after the images belongs to.
        token: ``(T,)`` which token of that question it is, counted from the image.
        image: ``(T,)`` the row it is in.
        column: ``(T,)`` its column there. Questions with one opening share the columns of the opening.
        source: Where the values of the ``U`` cells that have to be read come from, as four tensors ``(U,)``: question
            and token to take, row and column to fill. An opening is taken from the first question that has it.
        segment: ``(B, W)`` the segment that a cell belongs to; -1 where there is no token.
        parent: ``(B, W)`` the opening that the cell's segment follows; 0 for openings and the prefix.
        position: ``(B, W)`` how many tokens stand before this one in a row of its own.
        prefix: ``P``.
        start: The first column that has to be read; what stands before it is in the key-value cache.
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
    prefix: int
    start: int
    openings: dict[str, int]

    def pack(self, values: Tensor) -> Tensor:
        """Puts ``(N, L, D)`` into rows, as far as they have to be read and follow the prefix; zero where no token is.

        Returns:
            ``(B, W - max(P, start), D)``.
        """
        question, token, image, column = self.source
        first = max(self.prefix, self.start)
        packed = values.new_zeros(len(self.segment), self.segment.shape[1] - first, values.shape[-1])
        return packed.index_put((image, column - first), values[question, token])

    def unpack(self, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        """Takes ``(N, L, D)`` out of rows again, zero at padding.

        Args:
            packed: ``(B, W - P, D)``, all that follows the prefix.
            shape: ``(N, L)``.
        """
        values = packed.new_zeros(*shape, packed.shape[-1])
        return values.index_put((self.question, self.token), packed[self.image, self.column - self.prefix])

    def to(self, device: torch.device | str) -> PackedRows:
        """Returns a copy on ``device``."""

        def move(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(move(part) for part in value)
            return to_device(value, device) if isinstance(value, Tensor) else value

        return PackedRows(**{name: move(value) for name, value in vars(self).items()})

    def visible(self) -> Tensor:
        """Returns which cells of its row each cell that has to be read sees: ``(B, W - start, W)`` bool.

        These are the ones of its own segment and of those that this one follows, up to and including itself.
        """
        segment, parent, position = (t[:, self.start :, None] for t in (self.segment, self.parent, self.position))
        seen = self.segment[:, None]
        return ((seen == 0) | (seen == parent) | (seen == segment)) & (self.position[:, None] <= position)


def plan_rows(
    lengths: Sequence[int],
    openings: Sequence[tuple[str, int]],
    image_index: Tensor,
    num_images: int,
    prefix: int,
    cached: Mapping[str, int] | None = None,
) -> PackedRows:
    """Decides where each token of a batch of prompts stands.

    Args:
        lengths: Tokens of each of the ``N`` prompts after its image.
        openings: For each of them the name of its opening, and how many of its tokens this is.
        image_index: ``(N,)`` ascending, on the host.
        num_images: ``B``.
        prefix: ``P``.
        cached: Openings that are in the key-value cache, as the prefix then is too; ``None``: nothing is.
    """
    known = dict(cached or {})
    new = {name: size for name, size in openings if name not in known}
    shared = known | new
    starts, end = {}, prefix
    for name, size in shared.items():
        starts[name], end = end, end + size
    names = list(shared)
    opening_segment = torch.tensor([names.index(name) + 1 for name, _ in openings], dtype=torch.long)
    opening_size = torch.tensor([size for _, size in openings], dtype=torch.long)
    opening_start = torch.tensor([starts[name] for name, _ in openings], dtype=torch.long)

    count = torch.tensor(lengths, dtype=torch.long)
    question = torch.repeat_interleave(torch.arange(len(count)), count)
    token = torch.arange(len(question)) - (count.cumsum(0) - count)[question]
    image = image_index[question]
    own = token >= opening_size[question]  # the tokens after the opening
    own_of_image = torch.zeros(num_images, dtype=torch.long).index_add(0, image_index, count - opening_size)
    before_in_row = own.cumsum(0) - 1 - (own_of_image.cumsum(0) - own_of_image)[image]
    column = torch.where(own, end + before_in_row, opening_start[question] + token)

    width = end + max(own_of_image.tolist())
    segment = torch.full((num_images, width), -1)
    parent = torch.zeros_like(segment)
    position = torch.full_like(segment, prefix)  # so that padding sees something: softmax over nothing is NaN
    segment[:, :prefix], position[:, :prefix] = 0, torch.arange(prefix)
    source = [(question[own], token[own], image[own], column[own])]
    for i, (name, size) in enumerate(shared.items(), 1):
        columns = slice(starts[name], starts[name] + size)
        segment[:, columns], position[:, columns] = i, prefix + torch.arange(size)
        if name in new:
            first = next(q for q, (other, _) in enumerate(openings) if other == name)
            row, offset = torch.cartesian_prod(torch.arange(num_images), torch.arange(size)).unbind(1)
            source.append((torch.full_like(offset, first), offset, row, starts[name] + offset))
    row, own_column = image[own], column[own]
    segment[row, own_column] = len(shared) + 1 + question[own]
    parent[row, own_column] = opening_segment[question[own]]
    position[row, own_column] = prefix + token[own]
    start = 0 if cached is None else prefix + sum(known.values())
    gathered = tuple(torch.cat(each) for each in zip(*source, strict=True))
    return PackedRows(question, token, image, column, gathered, segment, parent, position, prefix, start, shared)
