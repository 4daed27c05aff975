"""From the language model's reading of the question to one mask-decoder query.

Shapes: ``B`` images, ``N`` questions, ``Q`` most questions of an image, ``D`` width of the language model, ``P`` width
of the projector, ``M`` heads of width ``d``, ``R`` cells of res5.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from segearth.model_types import KeysValues
from segearth.models.packing import pack


def pool_description(hidden_states: Tensor, description_mask: Tensor) -> Tensor:
    """Averages the hidden states of each question's description tokens.

    Args:
        hidden_states: ``(N, L, D)``.
        description_mask: ``(N, L)`` bool with at least one ``True`` a row.

    Returns:
        ``(N, D)``.
    """
    weight = description_mask.to(hidden_states.dtype)
    return torch.einsum("nld,nl->nd", hidden_states, weight / weight.sum(1, keepdim=True))


class PerceiverLayer(nn.Module):
    """Attention of a latent to the image's cells and to itself, then a feed-forward, both residual."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, ff_mult: int) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.norm_media = nn.LayerNorm(dim)  # of the image's cells, which the Perceiver calls media
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.ff_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim * ff_mult, bias=False)
        self.fc2 = nn.Linear(dim * ff_mult, dim, bias=False)

    def keys_values(self, cells: Tensor) -> KeysValues:
        """Projects an image's cells once: ``(B, R, P)`` → keys and values ``(B, R, M, d)``."""
        keys, values = self.to_kv(self.norm_media(cells)).chunk(2, -1)
        return self._heads(keys), self._heads(values)

    def forward(self, latent: Tensor, keys_values: KeysValues) -> Tensor:
        """Updates the latents.

        Args:
            latent: ``(B, Q, P)``; latents do not see each other.
            keys_values: From :meth:`keys_values`.

        Returns:
            ``(B, Q, P)``.
        """
        keys, values = keys_values
        normed = self.norm_latents(latent)
        q = self._heads(self.to_q(normed)) * keys.shape[-1] ** -0.5
        own_key, own_value = (self._heads(part) for part in self.to_kv(normed).chunk(2, -1))
        scores = torch.einsum("bqmd,brmd->bqmr", q, keys)
        own_score = (q * own_key).sum(-1, keepdim=True)
        weights = torch.cat([scores, own_score], -1).softmax(-1)
        attended = torch.einsum("bqmr,brmd->bqmd", weights[..., :-1], values) + weights[..., -1:] * own_value
        latent = latent + self.to_out(rearrange(attended, "b q m d -> b q (m d)"))
        return latent + self.fc2(F.gelu(self.fc1(self.ff_norm(latent))))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (m d) -> b n m d", m=self.num_heads)


class DescriptionProjector(nn.Module):
    """Makes a query of a description's average, after a look at the image through a Perceiver (arXiv 2103.03206).

    A latent is a vector that attends to the image. The published form has one for each word beside that of the average,
    but each sees only the image and itself, and only the average's is read in the end. So only that one is computed.
    """

    def __init__(
        self, language_dim: int, vision_dim: int, query_dim: int, dim: int, depth: int, num_heads: int, head_dim: int,
        ff_mult: int,
    ) -> None:  # fmt: skip
        """Builds the projections and ``depth`` Perceiver layers.

        Args:
            language_dim: ``D``.
            vision_dim: Channels of res5.
            query_dim: Channels of the mask decoder.
            dim: ``P``.
            depth: Perceiver layers.
            num_heads: Heads of each layer.
            head_dim: Width of a head.
            ff_mult: Feed-forward width as a multiple of ``dim``.
        """
        super().__init__()
        self.origin_proj = nn.Linear(language_dim, dim)
        self.latent_proj = nn.Linear(language_dim, dim)
        self.image_proj = nn.Linear(vision_dim, dim)
        self.layers = nn.ModuleList(PerceiverLayer(dim, num_heads, head_dim, ff_mult) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.query_proj = nn.Linear(2 * dim, query_dim)

    def keys_values(self, res5: Tensor) -> list[KeysValues]:
        """Projects ``(B, C5, h, w)`` once an image, for every layer."""
        cells = self.image_proj(rearrange(res5, "b d h w -> b (h w) d"))
        return [layer.keys_values(cells) for layer in self._perceiver()]

    def forward(self, pooled: Tensor, keys_values: list[KeysValues], image_index: Tensor) -> Tensor:
        """Projects questions to queries.

        Args:
            pooled: ``(N, D)``, the average of each description's hidden states.
            keys_values: From :meth:`keys_values`.
            image_index: ``(N,)`` ascending, on the host; which image each question belongs to.

        Returns:
            ``(N, query_dim)``.
        """
        packed, index = pack(pooled, image_index, len(keys_values[0][0]))
        return self.project(packed, keys_values)[index]

    def project(self, pooled: Tensor, keys_values: list[KeysValues]) -> Tensor:
        """Projects questions that lie side by side, image by image: ``(B, Q, D)`` to ``(B, Q, query_dim)``."""
        latent = self.latent_proj(pooled)
        for layer, of_layer in zip(self._perceiver(), keys_values, strict=True):
            latent = layer(latent, of_layer)
        return self.query_proj(torch.cat([self.origin_proj(pooled), self.norm(latent)], -1))

    def _perceiver(self) -> Iterator[PerceiverLayer]:
        for layer in self.layers:
            assert isinstance(layer, PerceiverLayer)  # a ModuleList forgets what it holds
            yield layer
