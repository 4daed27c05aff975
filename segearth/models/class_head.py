"""Predicts from a class's name which cells show it; used in training only.

A question teaches the cells of its own target. Here every class that is annotated in a view, and every one known to be
absent, teaches all cells at once, for the price of one product each (the text-pixel loss of LSeg, arXiv 2201.03546).
Features then differ by class early in training, long before questions about positions and sizes would teach them that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segearth.model_types import ClassMaps
from segearth.models.description_projector import pool_description


class ClassHead(nn.Module):
    """Turns a class's name, without any context, into the vector whose product with a cell's features is its logit."""

    def __init__(self, language_dim: int, mask_dim: int) -> None:
        """Takes the widths of word embeddings and of mask features."""
        super().__init__()
        self.direction = nn.Linear(language_dim, mask_dim)
        self.bias = nn.Linear(language_dim, 1)

    def forward(self, words: Tensor, classes: ClassMaps, mask_features: Tensor) -> Tensor:
        """Predicts each class at every cell of its image.

        Args:
            words: ``(K, T, D)`` embeddings of the names' tokens.
            classes: Says which of these tokens are real, and which image each class is looked for in.
            mask_features: ``(B, C, h, w)``.

        Returns:
            ``(K, h, w)`` logits.
        """
        name = pool_description(words, classes.real)
        features = mask_features[classes.image_index]
        return torch.einsum("kc,kchw->khw", self.direction(name), features) + self.bias(name)[..., None]
