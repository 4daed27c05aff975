"""Ties the features of each cell to the names of what it shows, in training only.

A question supervises the cells of its own target. Here every class that is annotated in a view, and every one known to
be absent, supervises all cells at once, for the price of one product each (the text-pixel loss of LSeg, arXiv
2201.03546): features are told apart by class long before questions about places and sizes have taught them that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segearth.model_types import ClassMaps
from segearth.models.description_projector import pool_description


class ClassHead(nn.Module):
    """From a class's name, without any context, to the direction that tells its cells from others."""

    def __init__(self, language_dim: int, mask_dim: int) -> None:
        """Takes the widths of word embeddings and of mask features."""
        super().__init__()
        self.direction = nn.Linear(language_dim, mask_dim)
        self.bias = nn.Linear(language_dim, 1)

    def forward(self, words: Tensor, classes: ClassMaps, mask_features: Tensor) -> Tensor:
        """Compares each class with every cell of its image.

        Args:
            words: ``(K, T, D)`` embeddings of the names' tokens.
            classes: Which of them are real, and the image of each class.
            mask_features: ``(B, C, h, w)``.

        Returns:
            ``(K, h, w)`` logits.
        """
        name = pool_description(words, classes.real)
        features = mask_features[classes.image_index]
        return torch.einsum("kc,kchw->khw", self.direction(name), features) + self.bias(name)[..., None]
