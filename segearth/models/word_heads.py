"""Short ways from words to an answer: where it may lie (:class:`BoxGate`), and whether there is one.

A query is made of an average over all words of a description, which at the start of training is nearly the same for
every description. A small model without pretrained weights then takes thousands of steps to tell "left" from "right",
or ships from trees. The modules here read the words directly: each has a vector of its own, and a description is the
sum of its words' vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segearth.layers.blocks import MLP

WORD_DIM = 64
MATCH_DIM = 128
START = 1.5  # half sides from the middle: at the start edges lie outside the image, and hide next to nothing
SHARPNESS = 8.0  # logits a half side: at the start an edge is a quarter of the image wide, and many cells move it


class BagOfWords(nn.Embedding):
    """A vector for each token of the vocabulary; a description is the sum of them, whatever the order of its words."""

    def __init__(self, vocab_size: int) -> None:
        """Takes the number of tokens."""
        super().__init__(vocab_size, WORD_DIM)
        nn.init.normal_(self.weight, std=0.5)

    def add_up(self, input_ids: Tensor, description_mask: Tensor) -> Tensor:
        """Maps ``(N, L)`` tokens to ``(N, WORD_DIM)``; where the mask ``(N, L)`` is ``False``, a token is left out."""
        return (self(input_ids) * description_mask[..., None]).sum(1)


class PresenceMatch(nn.Module):
    """How well a description's words and the image as a whole go together.

    Whether ships are there depends on the words and the image *together*; neither says anything alone. A product of the
    two can say it from the first steps on. A query, which begins as a sum of both, takes hundreds of steps for it.
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
    """Predicts a box with soft edges from each query and its words.

    A mask logit is the product of a cell's features and one vector, so that what a thing is and where it lies *add up*.
    For "the roads in the left half" a vector must say "no" to the roads on the right more strongly than it says "yes"
    to roads, and training hardly finds such vectors. With :func:`gate` a cell belongs to the answer only if it is what
    was named *and* lies inside the box.
    """

    def __init__(self, dim: int) -> None:
        """Takes the channels of a query. At the start every box holds the whole image."""
        super().__init__()
        self.mlp = MLP([dim + WORD_DIM, dim, 6])
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, query: Tensor, words: Tensor) -> Tensor:
        """Maps queries ``(…, dim)`` and the sums of their words' vectors ``(…, WORD_DIM)`` to boxes ``(…, 6)``.

        A box is left, top, right, bottom, and the sharpness of its edges across and down. Edges are in half sides from
        the image's middle, so that the image spans -1 to 1; sharpness is in logits a half side.
        """
        moved, sharpness = self.mlp(torch.cat([query, words], -1)).split([4, 2], -1)
        # Numbers, since a tensor of constants would have to be copied to the GPU first.
        edges = [moved[..., :2] - START, moved[..., 2:] + START]
        return torch.cat([*edges, SHARPNESS * sharpness.clamp(-3, 3).exp()], -1)


def gate(logits: Tensor, boxes: Tensor) -> Tensor:
    """Lowers logits outside of boxes.

    A cell's result is a soft minimum of five numbers: its mask logit, and how far it is inside each of the four edges,
    in logits. The soft minimum of ``x_i`` is ``-log(sum of exp(-x_i))``.

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
    return -soft_maximum(-logits, soft_maximum(columns, rows))


def _outside(low: Tensor, high: Tensor, sharpness: Tensor, cells: int) -> Tensor:
    """How far each of a row of cells is beyond either edge, in logits: ``(…, 1)`` each to ``(…, cells)``."""
    centres = (torch.arange(cells, device=low.device) + 0.5) / cells * 2 - 1
    centres = centres.to(low.dtype)
    return soft_maximum(sharpness * (low - centres), sharpness * (centres - high))


def soft_maximum(one: Tensor, other: Tensor) -> Tensor:
    """``log(exp(one) + exp(other))``, written so that no ``exp`` overflows; ONNX has no ``logaddexp``."""
    return torch.maximum(one, other) + F.softplus(-(one - other).abs())
