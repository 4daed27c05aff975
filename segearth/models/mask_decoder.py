"""Masked-attention mask decoder over given queries (Mask2Former, arXiv 2112.01527).

One question is one query. Queries of the same image share its keys and values but never see each other, so an answer
cannot depend on what else was asked.

Shapes: ``B`` images, ``Q`` query slots an image, ``N`` questions in all, ``C`` channels, ``K`` cells of a memory level.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.layers.blocks import MLP
from segearth.layers.position import sine_position
from segearth.model_types import DecoderMemory, KeysValues, MaskOutput
from segearth.models.packing import pack
from segearth.models.pixel_decoder import NUM_LEVELS
from segearth.models.word_heads import BoxGate, PresenceMatch, gate


class MaskDecoderLayer(nn.Module):
    """Cross-attention to one memory level, self-attention of a single query, feed-forward; norm after each."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.cross_q = nn.Linear(dim, dim)
        self.cross_k = nn.Linear(dim, dim)
        self.cross_v = nn.Linear(dim, dim)
        self.cross_out = nn.Linear(dim, dim)
        self.cross_norm = nn.LayerNorm(dim)
        # Softmax over one key is 1: self-attention of a lone query is its value, projected.
        self.self_v = nn.Linear(dim, dim)
        self.self_out = nn.Linear(dim, dim)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn1 = nn.Linear(dim, ffn_dim)
        self.ffn2 = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)

    def keys_values(self, memory: Tensor, placed: Tensor) -> KeysValues:
        """Projects a memory level once an image.

        Args:
            memory: ``(B, K, C)``; the values are made of it.
            placed: ``memory`` with the encoding of each cell's position added, ``(B, K, C)``; the keys are made of it,
                so that a query can tell by place where to look.

        Returns:
            Keys and values, each ``(B, M, K, C/M)``.
        """
        return self._heads(self.cross_k(placed)), self._heads(self.cross_v(memory))

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
        """Updates the queries.

        Args:
            query: ``(B, Q, C)``.
            keys: ``(B, M, K, C/M)``.
            values: ``(B, M, K, C/M)``.
            visible: ``(B, Q, K)`` bool, ``True`` where a query may look.

        Returns:
            ``(B, Q, C)``.
        """
        attended = F.scaled_dot_product_attention(
            self._heads(self.cross_q(query)), keys, values, attn_mask=visible.unsqueeze(1)
        )
        query = self.cross_norm(query + self.cross_out(rearrange(attended, "b m q d -> b q (m d)")))
        query = self.self_norm(query + self.self_out(self.self_v(query)))
        return self.ffn_norm(query + self.ffn2(F.relu(self.ffn1(query))))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (m d) -> b m n d", m=self.num_heads)


class MaskDecoder(nn.Module):
    """Refines each query against the image and reads its mask and its presence off it."""

    def __init__(
        self, dim: int = 256, num_layers: int = 9, num_heads: int = 8, ffn_dim: int = 2048, mask_dim: int | None = None,
        memory_dim: int | None = None, box_gate: BoxGate | None = None, presence_match: PresenceMatch | None = None,
    ) -> None:  # fmt: skip
        """Builds the decoder.

        Args:
            dim: Channels of queries.
            num_layers: Layers; layer ``i`` reads level ``i mod 3`` (res5, res4, res3).
            num_heads: Heads of the cross-attention.
            ffn_dim: Width of the feed-forward.
            mask_dim: Channels of the mask features; ``dim`` if left out.
            memory_dim: Channels of the memory levels; where it differs from ``dim`` they are projected.
            box_gate: Draws a box for each query, outside of which its mask ends; ``None``: masks end nowhere.
            presence_match: Adds to presence how well words and image go together; ``None``: queries alone decide it.

        Raises:
            ConfigError: Heads do not divide channels.
        """
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"mask_decoder: {num_heads} heads do not divide {dim} channels")
        self.dim = dim
        memory_dim = memory_dim or dim
        self.memory_proj = nn.ModuleList(
            nn.Identity() if memory_dim == dim else nn.Conv2d(memory_dim, dim, 1) for _ in range(NUM_LEVELS)
        )
        self.level_embed = nn.Embedding(NUM_LEVELS, dim)  # a module of its own, so that ZeRO-3 can gather it
        self.layers = nn.ModuleList(MaskDecoderLayer(dim, num_heads, ffn_dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.mask_embed = MLP([dim, dim, dim, mask_dim or dim])
        self.presence_head = MLP([dim, dim, 1])
        self.box_gate, self.presence_match = box_gate, presence_match
        for layer in self.layers:
            for parameter in layer.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def remember(self, mask_features: Tensor, memory: list[Tensor]) -> DecoderMemory:
        """Projects an image once, for every layer.

        Args:
            mask_features: ``(B, mask_dim, H/4, W/4)``.
            memory: Three levels, each ``(B, memory_dim, h, w)``, coarse to fine.
        """
        with torch.no_grad():
            precise = mask_features.float()
            shrunk = [
                F.interpolate(precise, level.shape[2:], mode="bilinear", align_corners=False).flatten(2)
                for level in memory
            ]
        level_features = [level.to(mask_features.dtype) for level in shrunk]
        return DecoderMemory(mask_features, level_features, self.keys_values(memory))

    def keys_values(self, memory: list[Tensor]) -> list[KeysValues]:
        """Projects the memory levels for every layer; ``memory`` as in :meth:`remember`."""
        levels = []
        level_embed = self.level_embed(torch.arange(NUM_LEVELS, device=memory[0].device))
        for i, (project, level) in enumerate(zip(self.memory_proj, memory, strict=True)):
            cells = rearrange(project(level), "b d h w -> b (h w) d") + level_embed[i]
            position = sine_position(level.shape[2], level.shape[3], self.dim, level.device)
            levels.append((cells, cells + position.to(cells.dtype)))
        return [layer.keys_values(*levels[i % NUM_LEVELS]) for i, layer in enumerate(self._layers())]

    def forward(
        self, queries: Tensor, image_index: Tensor, memory: DecoderMemory, auxiliary: bool = False,
        words: Tensor | None = None,
    ) -> MaskOutput:  # fmt: skip
        """Decodes one mask a query.

        Args:
            queries: ``(N, C)``.
            image_index: ``(N,)`` ascending, on the host; which image each query is about.
            memory: From :meth:`remember`.
            auxiliary: Also return the logits before the first and after every earlier layer, which the loss supervises.
            words: ``(N, W)`` sums of word vectors, for the box and the presence that read them; ``None`` if none does.

        Returns:
            Mask logits ``(N, H/4, W/4)`` after the last layer, presence logits ``(N,)``, auxiliary logits, and boxes if
            they are drawn.
        """
        query, place = pack(queries, image_index, len(memory.mask_features))
        packed = None if words is None else pack(words, image_index, len(memory.mask_features))[0]
        logits, presence, earlier, boxes = self.decode(query, memory, auxiliary, packed)
        found = MaskOutput(logits[place], presence[place], [each[place] for each in earlier])
        if boxes is not None:
            found.boxes = boxes.transpose(1, 2)[place]
        return found

    def decode(
        self, query: Tensor, memory: DecoderMemory, auxiliary: bool = False, words: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor | None]:
        """Decodes queries that lie side by side, image by image.

        Args:
            query: ``(B, Q, C)``.
            memory: From :meth:`remember`.
            auxiliary: Also return the logits before the first and after every earlier layer.
            words: ``(B, Q, W)`` sums of word vectors.

        Returns:
            Mask logits ``(B, Q, H/4, W/4)``, presence logits ``(B, Q)``, the logits that were kept, and the boxes that
            they and the final ones end at, ``(B, P, Q, 6)``, if boxes are drawn.
        """
        answers = [self._read(query, words)]
        for i, layer in enumerate(self._layers()):
            visible = self._visible(answers[-1], memory, i % NUM_LEVELS)
            query = layer(query, *memory.layers[i], visible)
            answers.append(self._read(query, words))
        # The masks of all depths in one product: its gradient passes over the large features once.
        wanted = answers if auxiliary else answers[-1:]
        embeddings = torch.stack([embedding for embedding, _ in wanted], 1)
        logits = torch.einsum("bpqc,bchw->bpqhw", embeddings, memory.mask_features)
        drawn = [box for _, box in wanted if box is not None]
        boxes = torch.stack(drawn, 1) if drawn else None
        if boxes is not None:
            logits = gate(logits, boxes)
        *earlier, last = logits.unbind(1)
        return last, self.read_presence(query, memory.mask_features, words), earlier, boxes

    def read_presence(self, query: Tensor, mask_features: Tensor, words: Tensor | None) -> Tensor:
        """Returns presence logits ``(B, Q)`` of queries ``(B, Q, C)`` that have passed every layer."""
        presence = self.presence_head(self.norm(query))[..., 0]
        return presence if self.presence_match is None else presence + self.presence_match(words, mask_features)

    def _read(self, query: Tensor, words: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What a mask is made of: the vector that features are multiplied by, and the box if there is one."""
        normed = self.norm(query)
        return self.mask_embed(normed), None if self.box_gate is None else self.box_gate(normed, words)

    @torch.no_grad()
    def _visible(self, answer: tuple[Tensor, Tensor | None], memory: DecoderMemory, level: int) -> Tensor:
        """Where the last masks are positive at the size of a memory level; see :func:`attention_mask`.

        Shrinking the features and shrinking the mask are the same, both being linear, and the features are shrunk once.
        """
        embedding, box = answer
        logits = embedding @ memory.level_features[level]
        if box is not None:
            shrunk = 2 ** (NUM_LEVELS - level)  # the mask features' cells are an eighth, a quarter, a half as wide
            height, width = (-(-side // shrunk) for side in memory.mask_features.shape[2:])  # rounded up, as Swin does
            logits = gate(logits.unflatten(-1, (height, width)), box).flatten(-2)
        return attention_mask(logits)

    def _layers(self) -> Iterator[MaskDecoderLayer]:
        for layer in self.layers:
            assert isinstance(layer, MaskDecoderLayer)  # a ModuleList forgets what it holds
            yield layer


def attention_mask(logits: Tensor) -> Tensor:
    """Lets each query look only where its last mask is positive; where that is nowhere, everywhere.

    Args:
        logits: ``(B, Q, K)`` of the last mask at the size of the level to be read.

    Returns:
        ``(B, Q, K)`` bool, ``True`` = visible.
    """
    visible = logits >= 0
    return visible | ~visible.any(-1, keepdim=True)
