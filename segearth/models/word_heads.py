"""What a few words decide by themselves: where an answer may lie, and whether there is one.

A query has been averaged over all words of a description and read by layers that start out alike for every word, so
that a small model that learns from nothing takes thousands of steps to tell "left" from "right", or ships from trees.
The modules here take the short way: the words of a description, each with a vector of its own and added up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segearth.layers.blocks import MLP

WORD_DIM = 64
MATCH_DIM = 128
START = 1.5  # of the image's half side: a new box lies outside the image and hides next to nothing
SHARPNESS = 8.0  # at the start an edge is about a quarter of the image wide, so that its gradient reaches far


class BagOfWords(nn.Embedding):
    """A vector for each token of the vocabulary, added up over a description, in whatever order its words come."""

    def __init__(self, vocab_size: int) -> None:
        """Takes the number of tokens."""
        super().__init__(vocab_size, WORD_DIM)
        nn.init.normal_(self.weight, std=0.5)

    def add_up(self, input_ids: Tensor, description_mask: Tensor) -> Tensor:
        """Maps ``(N, L)`` tokens to ``(N, WORD_DIM)``; those where the mask ``(N, L)`` is ``False`` do not count."""
        return (self(input_ids) * description_mask[..., None]).sum(1)


class PresenceMatch(nn.Module):
    """How well a description's words and the image as a whole go together.

    Whether ships are there depends on the words and the image *together*: neither says anything alone. A product of the
    two shows that at the first steps; a sum, which is what a query starts out as, does not.
    """

    def __init__(self, dim: int) -> None:
        """Takes the channels of mask features."""
        super().__init__()
        self.words = nn.Linear(WORD_DIM, MATCH_DIM)
        self.image = nn.Linear(2 * dim, MATCH_DIM)
        self.out = nn.Linear(MATCH_DIM, 1)

    def forward(self, words: Tensor, mask_features: Tensor) -> Tensor:
        """Returns what is added to presence logits, ``(B, Q)``.

        Args:
            words: ``(B, Q, WORD_DIM)`` from :class:`BagOfWords`.
            mask_features: ``(B, C, h, w)``; their mean and their peak stand for the image.
        """
        cells = mask_features.flatten(2)
        image = self.image(torch.cat([cells.mean(-1), cells.amax(-1)], -1))
        return self.out(F.gelu(self.words(words) * image[:, None])).squeeze(-1)


class BoxGate(nn.Module):
    """Reads four edges and two sharpnesses off each query and its words.

    A mask logit is the product of a cell's features and one vector, in which what a thing is and where it lies *add
    up*: the vector for "the roads in the left half" has to outweigh its own evidence for roads everywhere else, and
    training does not find it. With :func:`gate` both must hold instead: a cell belongs to the answer as far as it is
    named *and* inside the box.
    """

    def __init__(self, dim: int) -> None:
        """Takes the channels of a query; until it has learned, every box holds the whole image."""
        super().__init__()
        self.mlp = MLP([dim + WORD_DIM, dim, 6])
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, query: Tensor, words: Tensor) -> Tensor:
        """Maps queries ``(…, dim)`` and the sums of their words' vectors ``(…, WORD_DIM)`` to boxes ``(…, 6)``.

        A box is left, top, right, bottom, sharpness across and down.

        Edges are in half sides from the image's middle, so that the image spans -1 to 1; sharpness is in logits a half
        side.
        """
        moved, sharpness = self.mlp(torch.cat([query, words], -1)).split([4, 2], -1)
        edges = [moved[..., :2] - START, moved[..., 2:] + START]  # a tensor of constants would wait for the device
        return torch.cat([*edges, SHARPNESS * sharpness.clamp(-3, 3).exp()], -1)


def gate(logits: Tensor, boxes: Tensor) -> Tensor:
    """Lowers logits outside of boxes.

    With ``e = exp(-evidence)`` for the mask and each of the four edges, the result is ``-log(sum of e)``: the least of
    the five evidences, softly.

    Args:
        logits: ``(…, h, w)``.
        boxes: ``(…, 6)`` from :class:`BoxGate`.

    Returns:
        ``(…, h, w)``, nowhere larger than ``logits``.
    """
    height, width = logits.shape[-2:]
    left, top, right, bottom, across, down = boxes.unsqueeze(-1).unbind(-2)
    columns = _outside(left, right, across, width).unsqueeze(-2)
    rows = _outside(top, bottom, down, height).unsqueeze(-1)
    return -_either(-logits, _either(columns, rows))


def _outside(low: Tensor, high: Tensor, sharpness: Tensor, cells: int) -> Tensor:
    """How far each of a row of cells is beyond either edge, in logits: ``(…, 1)`` each to ``(…, cells)``."""
    place = (torch.arange(cells, device=low.device) + 0.5) / cells * 2 - 1
    place = place.to(low.dtype)
    return _either(sharpness * (low - place), sharpness * (place - high))


def _either(one: Tensor, other: Tensor) -> Tensor:
    """``log(exp(one) + exp(other))``; exported graphs have no ``logaddexp``, and its definition overflows."""
    return torch.maximum(one, other) + F.softplus(-(one - other).abs())
