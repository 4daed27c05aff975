"""Multi-scale deformable pixel decoder (Mask2Former, arXiv 2112.01527).

Shapes: ``B`` images, ``C`` decoder channels, ``S`` cells of the three coarse levels laid end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segearth.errors import ConfigError
from segearth.layers.blocks import group_norm
from segearth.layers.deformable_attention import DeformableAttention, Sampler
from segearth.layers.position import sine_position

NUM_LEVELS = 3  # of attention, across res5, res4 and res3; res2 is only added in the end


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward; norm after each."""

    def __init__(self, dim: int, num_heads: int, num_points: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, NUM_LEVELS, num_heads, num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """Maps ``(B, S, C)`` to the same shape; ``position`` is ``(S, C)``, ``reference`` ``(S, 2)``."""
        x = self.norm1(x + self.self_attn(x + position, reference, x, shapes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class PixelDecoder(nn.Module):
    """Turns the vision encoder's four maps into mask features and multi-scale features of three levels.

    Attributes:
        dim: Channels of the multi-scale features.
        mask_dim: Channels of the mask features.
        recomputes: Whether training computes the largest maps a second time in the backward pass instead of keeping
            them from the forward pass: they take the most memory of all, and computing them takes little time.
    """

    def __init__(
        self, in_channels: Sequence[int], dim: int = 256, num_layers: int = 6, num_heads: int = 8, num_points: int = 4,
        ffn_dim: int = 1024, mask_dim: int | None = None,
    ) -> None:  # fmt: skip
        """Builds the decoder.

        Args:
            in_channels: Channels of res2, res3, res4, res5.
            dim: ``C``, divisible by 4 and by ``num_heads``.
            num_layers: Deformable encoder layers.
            num_heads: Heads of each.
            num_points: Points a head reads in each level.
            ffn_dim: Width of the feed-forward.
            mask_dim: Channels of the mask features; ``dim`` if left out.

        Raises:
            ConfigError: Not four maps, or heads do not divide channels.
        """
        super().__init__()
        if len(in_channels) != 4:
            raise ConfigError(f"pixel_decoder reads four maps, the vision encoder gives {len(in_channels)}")
        if dim % num_heads or dim % 4:
            raise ConfigError(f"pixel_decoder: dim {dim} must be divisible by 4 and by its {num_heads} heads")
        self.dim, self.mask_dim = dim, mask_dim or dim
        self.recomputes = True
        coarse_to_fine = list(in_channels)[:0:-1]  # res5, res4, res3
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, dim, 1), group_norm(dim)) for channels in coarse_to_fine
        )
        # An Embedding and no bare parameter: ZeRO-3 brings weights together when the module that holds them is called.
        self.level_embed = nn.Embedding(NUM_LEVELS, dim)
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(dim, num_heads, num_points, ffn_dim) for _ in range(num_layers)
        )
        # ReLU may overwrite the norm's output, since a norm's backward pass needs its input alone. That spares a map of
        # the largest size.
        self.lateral = nn.Sequential(nn.Conv2d(in_channels[0], dim, 1), group_norm(dim), nn.ReLU(inplace=True))
        self.output = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), group_norm(dim), nn.ReLU(inplace=True))
        self.mask_features = nn.Conv2d(dim, self.mask_dim, 1)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def blocks(self) -> list[nn.Module]:
        """The layers that activation checkpointing runs again in the backward pass."""
        return list(self.layers)

    @contextmanager
    def sampling_with(self, sample: Sampler) -> Iterator[None]:
        """Inside, every layer reads its points with another function, see :class:`DeformableAttention`."""
        attentions = [module for module in self.modules() if isinstance(module, DeformableAttention)]
        before = [attention.sample for attention in attentions]
        try:
            for attention in attentions:
                attention.sample = sample
            yield
        finally:
            for attention, usual in zip(attentions, before, strict=True):
                attention.sample = usual

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Decodes.

        Args:
            maps: res2..res5, each ``(B, C_i, h_i, w_i)``.

        Returns:
            Mask features ``(B, mask_dim, H/4, W/4)``, and multi-scale features ``(B, C, h, w)`` at the sizes of res5,
            res4 and res3.
        """
        res2, *coarse = maps
        projected = [proj(level) for proj, level in zip(self.input_proj, reversed(coarse), strict=True)]
        shapes = [(level.shape[2], level.shape[3]) for level in projected]
        x = torch.cat([rearrange(level, "b d h w -> b (h w) d") for level in projected], 1)
        level_embed = self.level_embed(torch.arange(NUM_LEVELS, device=x.device))
        position = torch.cat(
            [sine_position(h, w, self.dim, x.device) + level_embed[i] for i, (h, w) in enumerate(shapes)]
        ).to(x.dtype)
        reference = torch.cat([cell_centres(h, w, x.device) for h, w in shapes])
        for layer in self.layers:
            x = layer(x, position, reference, shapes)
        sizes = [h * w for h, w in shapes]
        multi_scale_features = [
            rearrange(part, "b (h w) d -> b d h w", h=h) for part, (h, _) in zip(x.split(sizes, 1), shapes, strict=True)
        ]
        finest = multi_scale_features[-1]
        if self.training and self.recomputes:
            # In two halves, so that the result of the 3 x 3 convolution between them is kept: of all that is done at
            # this size, it alone takes long.
            fused = checkpoint(self._fuse, res2, finest, use_reentrant=False)
            return checkpoint(self._to_mask_features, fused, use_reentrant=False), multi_scale_features
        return self._to_mask_features(self._fuse(res2, finest)), multi_scale_features

    def _fuse(self, res2: Tensor, finest: Tensor) -> Tensor:
        """Adds the finest of the multi-scale features, enlarged, to res2: a step of a feature pyramid."""
        # Both maps need the same memory format (channels first or last), or each of the steps below, at the largest
        # size there is, would first copy one of them. clone() always writes the format that it is given. contiguous()
        # would not do: a single image can count as being in either format, and is then left as it is.
        last = res2.is_contiguous(memory_format=torch.channels_last)
        finest = finest.clone(memory_format=torch.channels_last if last else torch.contiguous_format)
        up = F.interpolate(finest, size=res2.shape[2:], mode="bilinear", align_corners=False)
        return self.output[0](self.lateral(res2) + up)

    def _to_mask_features(self, fused: Tensor) -> Tensor:
        return self.mask_features(self.output[1:](fused))


def cell_centres(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the centres of a map's cells as (x, y) in [0, 1], row by row: ``(height * width, 2)``."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], -1).reshape(-1, 2)
