"""Hierarchical vision encoders: four maps at strides 4, 8, 16 and 32.

:class:`SwinEncoder` is written here because it must equal the Swin of Mask2Former at every size: a block pads a map to
whole windows and then shifts it (by ``roll``), and windows never shrink. timm's Swin shifts first, and not at all where
a map is no larger than a window, so at most sizes it gives other features with the same weights. :class:`TimmEncoder`
takes any hierarchical backbone of timm by name.

Shapes: ``B`` images, ``H W`` cells of the stage, ``C`` channels, ``M`` heads, ``T`` window side.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.layers.blocks import ChannelNorm, DropPath, Freezable
from segearth.layers.checkpointing import innermost_blocks
from segearth.utils.text import first_line

if TYPE_CHECKING:
    from segearth.config import VisionEncoderConfig

logger = logging.getLogger(__name__)


class VisionEncoder(Freezable):
    """Contract of every vision encoder.

    Attributes:
        channels: Channels of the four output maps, fine to coarse.
        strides: Their strides in pixels; always (4, 8, 16, 32).
        pretrained: Whether building it loaded weights, so that it may be frozen.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...] = (4, 8, 16, 32)
    pretrained: bool = False

    def blocks(self) -> list[nn.Module]:
        """The modules that activation checkpointing runs again in the backward pass."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        """Encodes ``(B, 3, H, W)`` normalised images to ``[(B, C_i, H / stride_i, W / stride_i)]``, fine to coarse."""
        raise NotImplementedError


def relative_position_index(window_size: int) -> Tensor:
    """Returns the row of Swin's bias table for each pair of cells of a window: ``(T², T²)`` int64 in [0, (2T - 1)²)."""
    cells = torch.cartesian_prod(torch.arange(window_size), torch.arange(window_size))
    offset = cells[:, None] - cells[None] + window_size - 1  # (T², T², 2)
    return offset[..., 0] * (2 * window_size - 1) + offset[..., 1]


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("relative_position_index", relative_position_index(window_size), persistent=False)

    def forward(self, windows: Tensor, shift_mask: Tensor | None) -> Tensor:
        """Attends inside each window.

        Args:
            windows: ``(B, rows, columns, T², C)``.
            shift_mask: From :func:`shift_mask`, or ``None`` where windows are not shifted.

        Returns:
            The same shape.
        """
        qkv = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1))
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # (M, T², T²)
        if shift_mask is None:
            out = self._attend(qkv, bias)
        else:
            # Windows with the same mask are computed together, in at most four groups. One mask for all windows would
            # take more memory than the features.
            rows, columns = qkv.shape[1:3]
            grid = [row.split((columns - 1, 1), 2) for row in qkv.split((rows - 1, 1), 1)]
            done = [
                torch.cat([self._attend(x, bias + shift_mask[i, j]) for j, x in enumerate(row) if x.shape[2]], 2)
                for i, row in enumerate(grid)
                if row[0].shape[1]
            ]
            out = torch.cat(done, 1)
        return self.proj(out)

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """Maps ``(B, rows, columns, T², 3, M, C/M)`` under a bias ``(M, T², T²)`` to ``(B, rows, columns, T², C)``."""
        batch, rows = qkv.shape[:2]
        q, k, v = rearrange(qkv.flatten(0, 2), "w t n m d -> n w m t d")
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None])
        return rearrange(out, "(b r c) m t d -> b r c t (m d)", b=batch, r=rows)


class SwinBlock(nn.Module):
    """(Shifted-)window attention and an MLP, both residual, norm first."""

    def __init__(
        self, dim: int, num_heads: int, window_size: int, shift: int, mlp_ratio: float, drop: float,
        local_conv: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.local_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if local_conv else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor, shift_mask: Tensor | None) -> Tensor:
        """Maps ``(B, H, W, C)`` to the same shape; ``shift_mask`` as in :class:`WindowAttention`."""
        if self.local_conv is not None:
            x = x + rearrange(self.local_conv(rearrange(x, "b h w d -> b d h w")), "b d h w -> b h w d")
        x = x + self.drop_path(self._attend(self.norm1(x), shift_mask))
        return x + self.drop_path(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))

    def _attend(self, x: Tensor, shift_mask: Tensor | None) -> Tensor:
        height, width = x.shape[1:3]
        side = self.window_size
        if height % side or width % side:  # padding by nothing would still copy the map
            x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = rearrange(x, "b (r y) (c x) d -> b r c (y x) d", y=side, x=side)
        windows = self.attn(windows, shift_mask if self.shift else None)
        x = rearrange(windows, "b r c (y x) d -> b (r y) (c x) d", y=side)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Joins 2 x 2 cells into one of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, H, W, C)`` to ``(B, ⌈H/2⌉, ⌈W/2⌉, 2C)``; odd sides are padded with zeros."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]  # Swin's order: down first, then across
        return self.reduction(self.norm(torch.cat(corners, -1)))


class SwinEncoder(VisionEncoder):
    """Swin transformer (arXiv 2103.14030) as Mask2Former runs it, with a LayerNorm on each output."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        """Builds from ``embed_dim``, ``depths``, ``num_heads``, ``window_size``, ``mlp_ratio`` and ``drop_path_rate``.

        Raises:
            ConfigError: ``depths`` and ``num_heads`` do not describe four stages, or heads do not divide channels.
        """
        super().__init__()
        if len(config.depths) != 4 or len(config.num_heads) != 4:
            raise ConfigError("vision_encoder: depths and num_heads need four stages each")
        self.channels = tuple(config.embed_dim * 2**i for i in range(4))
        for dim, heads in zip(self.channels, config.num_heads, strict=True):
            if dim % heads:
                raise ConfigError(f"vision_encoder: {heads} heads do not divide {dim} channels")
        self.window_size = config.window_size
        self.patch_embed = patch_embedding(config.stem, config.embed_dim)
        self.patch_norm = nn.LayerNorm(config.embed_dim)
        last = max(1, sum(config.depths) - 1)
        drops = [config.drop_path_rate * i / last for i in range(sum(config.depths))]  # deeper blocks drop more
        self.stages, self.downsamples, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for dim, heads, depth in zip(self.channels, config.num_heads, config.depths, strict=True):
            shifts = [0 if i % 2 == 0 else config.window_size // 2 for i in range(depth)]
            blocks = [
                SwinBlock(
                    dim, heads, config.window_size, shift, config.mlp_ratio, drops.pop(0), config.local_conv
                )
                for shift in shifts
            ]
            self.stages.append(nn.ModuleList(blocks))
            self.norms.append(nn.LayerNorm(dim))
            if dim != self.channels[-1]:
                self.downsamples.append(PatchMerging(dim))
        self.apply(_init_linear)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Encodes images; see :class:`VisionEncoder`. Sides that are not multiples of 4 are padded right and bottom."""
        images = F.pad(images, (0, -images.shape[-1] % 4, 0, -images.shape[-2] % 4))
        x = self.patch_norm(rearrange(self.patch_embed(images), "b d h w -> b h w d"))
        mask = shift_mask(self.window_size, x.device)
        outputs = []
        for i, (blocks, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if i:
                x = self.downsamples[i - 1](x)
            assert isinstance(blocks, nn.ModuleList)  # a ModuleList forgets what it holds
            for block in blocks:
                x = block(x, mask)
            outputs.append(rearrange(norm(x), "b h w d -> b d h w"))
        return outputs

    def blocks(self) -> list[nn.Module]:
        """See :class:`VisionEncoder`."""
        return innermost_blocks(self.stages)


def patch_embedding(stem: str, dim: int) -> nn.Module:
    """Returns what turns pixels into cells of stride 4: ``(B, 3, H, W)`` to ``(B, dim, H/4, W/4)``.

    Args:
        stem: ``"patch"`` or ``"conv"``, see :class:`~segearth.config.VisionEncoderConfig`.
        dim: Channels of the cells.

    Raises:
        UnknownNameError: ``stem`` is neither.
    """
    if stem == "patch":
        return nn.Conv2d(3, dim, 4, stride=4)
    if stem == "conv":  # overlapping convolutions see edges between patches, too (arXiv 2106.14881)
        first = nn.Conv2d(3, dim // 2, 3, stride=2, padding=1)
        return nn.Sequential(first, ChannelNorm(dim // 2), nn.GELU(), nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1))
    raise UnknownNameError("vision encoder stem", stem, ["patch", "conv"])


def shift_mask(window_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the masks, to be added to attention scores, that keep apart cells which only the shift brought together.

    The shift moves the map's first rows into the windows of the last row, and its first columns into those of the last
    column; no other window needs a mask.

    Args:
        window_size: Window side ``T``; the shift is half of it.
        device: Where to make it.

    Returns:
        ``(2, 2, T², T²)``, for windows in the last row (1) or not (0), and in the last column or not: 0 where two cells
        may see each other, else -100.
    """
    rolled = torch.arange(window_size, device=device) >= window_size - window_size // 2
    inside = torch.stack([torch.zeros_like(rolled), rolled])  # (2, T): not the last window, the last one
    row = inside[:, None, :, None].expand(2, 2, window_size, window_size).flatten(2)
    column = inside[None, :, None, :].expand(2, 2, window_size, window_size).flatten(2)
    apart = (row[..., None, :] != row[..., None]) | (column[..., None, :] != column[..., None])
    return apart.float() * -100.0


class TimmEncoder(VisionEncoder):
    """Any hierarchical timm backbone that yields strides 4, 8, 16 and 32, by name."""

    def __init__(self, name: str, pretrained: bool = False) -> None:
        """Creates the backbone.

        Args:
            name: A timm model name, such as ``"convnext_tiny"`` or ``"swin_tiny_patch4_window7_224"``.
            pretrained: Whether timm shall load its weights (from its hub or cache), if it has some.

        Raises:
            UnknownNameError: timm does not know the name.
            CheckpointError: The weights cannot be fetched.
            ConfigError: The backbone has other strides.
        """
        super().__init__()
        from segearth.utils.torchvision_mend import mend_torchvision

        mend_torchvision()
        import timm

        if not timm.is_model(name):
            raise UnknownNameError("timm backbone", name, timm.list_models())
        self.pretrained = pretrained and timm.is_model_pretrained(name)
        if pretrained and not self.pretrained:
            logger.warning("timm has no weights for %s: it starts at random", name)
        self.backbone = self._create(name)
        facts: Any = self.backbone.feature_info
        self.channels = tuple(facts.channels())
        self.channels_last = "NHWC" in str(getattr(self.backbone, "output_fmt", ""))  # as timm's Swins answer
        strides = tuple(facts.reduction())
        if strides != self.strides:
            raise ConfigError(f"timm backbone {name} has strides {strides}, not {self.strides}; choose another")

    def _create(self, name: str) -> nn.Module:
        import timm

        options: dict[str, Any] = {"features_only": True, "out_indices": (-4, -3, -2, -1)}
        if name.startswith("swin"):
            options["strict_img_size"] = False
        if not self.pretrained:
            return timm.create_model(name, pretrained=False, **options)
        try:
            return timm.create_model(name, pretrained=True, **options)
        except Exception as error:  # timm, its hub client and the network raise unrelated classes
            raise CheckpointError(
                f"timm cannot fetch the weights of {name}: {first_line(error)}; run once where its hub can be reached, "
                "or set vision_encoder.pretrained: false to start at random"
            ) from error

    def blocks(self) -> list[nn.Module]:
        """See :class:`VisionEncoder`."""
        return innermost_blocks(self.backbone)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Encodes images; see :class:`VisionEncoder`. Sides are padded right and bottom to multiples of 32."""
        images = F.pad(images, (0, -images.shape[-1] % 32, 0, -images.shape[-2] % 32))
        maps = self.backbone(images)
        return [rearrange(level, "b h w d -> b d h w") for level in maps] if self.channels_last else maps


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
