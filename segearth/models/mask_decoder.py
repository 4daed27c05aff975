"""Masked-attention mask decoder over given queries (Mask2Former, arXiv 2112.01527).

One question is one query. Queries of the same image share its keys and values but never see each other, so an answer
cannot depend on what else was asked.

Shapes: ``B`` images, ``Q`` query slots an image, ``N`` questions in all, ``C`` channels, ``M`` heads, ``K`` cells of a
level (one of the pixel decoder's three multi-scale features).
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
from segearth.model_types import DecoderFeatures, KeysValues, MaskOutput
from segearth.models.packing import pack
from segearth.models.pixel_decoder import NUM_LEVELS
from segearth.models.word_heads import BoxGate, PresenceMatch, gate


class MaskDecoderLayer(nn.Module):
    """Cross-attention to one level, self-attention of a single query, feed-forward; norm after each."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.cross_q = nn.Linear(dim, dim)
        self.cross_k = nn.Linear(dim, dim)
        self.cross_v = nn.Linear(dim, dim)
        self.cross_out = nn.Linear(dim, dim)
        self.cross_norm = nn.LayerNorm(dim)
        # Each query is alone in its self-attention. Softmax over one key is always 1, so attention returns the query's
        # own value, and the published layer's weights for queries and keys would change nothing.
        self.self_v = nn.Linear(dim, dim)
        self.self_out = nn.Linear(dim, dim)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn1 = nn.Linear(dim, ffn_dim)
        self.ffn2 = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)

    def keys_values(self, cells: Tensor, cells_with_position: Tensor) -> KeysValues:
        """Projects a level once an image.

        Args:
            cells: ``(B, K, C)``; the values are made of them.
            cells_with_position: The same with an encoding of each cell's position added, ``(B, K, C)``; the keys are
                made of them, so that a query can choose where to look by position, too.

        Returns:
            Keys and values, each ``(B, M, K, C/M)``.
        """
        return self._heads(self.cross_k(cells_with_position)), self._heads(self.cross_v(cells))

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
        feature_dim: int | None = None, box_gate: BoxGate | None = None, presence_match: PresenceMatch | None = None,
    ) -> None:  # fmt: skip
        """Builds the decoder.

        Args:
            dim: Channels of queries.
            num_layers: Layers; layer ``i`` reads level ``i mod 3`` (res5, res4, res3).
            num_heads: Heads of the cross-attention.
            ffn_dim: Width of the feed-forward.
            mask_dim: Channels of the mask features; ``dim`` if left out.
            feature_dim: Channels of the multi-scale features; where it differs from ``dim`` they are projected.
            box_gate: Draws a box for each query, outside of which its mask ends; ``None``: no boxes are drawn.
            presence_match: Adds to presence how well words and image go together; ``None``: queries alone decide it.

        Raises:
            ConfigError: Heads do not divide channels.
        """
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"mask_decoder: {num_heads} heads do not divide {dim} channels")
        self.dim = dim
        feature_dim = feature_dim or dim
        self.input_proj = nn.ModuleList(
            nn.Identity() if feature_dim == dim else nn.Conv2d(feature_dim, dim, 1) for _ in range(NUM_LEVELS)
        )
        # An Embedding and no bare parameter: ZeRO-3 brings weights together when the module that holds them is called.
        self.level_embed = nn.Embedding(NUM_LEVELS, dim)
        self.layers = nn.ModuleList(MaskDecoderLayer(dim, num_heads, ffn_dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.mask_embed = MLP([dim, dim, dim, mask_dim or dim])
        self.presence_head = MLP([dim, dim, 1])
        self.box_gate, self.presence_match = box_gate, presence_match
        for layer in self.layers:
            for parameter in layer.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def prepare_image(self, mask_features: Tensor, multi_scale_features: list[Tensor]) -> DecoderFeatures:
        """Computes what every query about an image needs of it, once.

        Args:
            mask_features: ``(B, mask_dim, H/4, W/4)``.
            multi_scale_features: Three levels, each ``(B, feature_dim, h, w)``, coarse to fine.
        """
        with torch.no_grad():
            precise = mask_features.float()
            shrunk = [
                F.interpolate(precise, level.shape[2:], mode="bilinear", align_corners=False).flatten(2)
                for level in multi_scale_features
            ]
        shrunk_mask_features = [level.to(mask_features.dtype) for level in shrunk]
        return DecoderFeatures(mask_features, shrunk_mask_features, self.keys_values(multi_scale_features))

    def keys_values(self, multi_scale_features: list[Tensor]) -> list[KeysValues]:
        """Projects the multi-scale features for every layer; they are as for :meth:`prepare_image`."""
        levels = []
        level_embed = self.level_embed(torch.arange(NUM_LEVELS, device=multi_scale_features[0].device))
        for i, (project, level) in enumerate(zip(self.input_proj, multi_scale_features, strict=True)):
            cells = rearrange(project(level), "b d h w -> b (h w) d") + level_embed[i]
            position = sine_position(level.shape[2], level.shape[3], self.dim, level.device)
            levels.append((cells, cells + position.to(cells.dtype)))
        return [layer.keys_values(*levels[i % NUM_LEVELS]) for i, layer in enumerate(self._layers())]

    def forward(
        self, queries: Tensor, image_index: Tensor, features: DecoderFeatures, auxiliary: bool = False,
        words: Tensor | None = None,
    ) -> MaskOutput:  # fmt: skip
        """Decodes one mask a query.

        Args:
            queries: ``(N, C)``.
            image_index: ``(N,)`` ascending, on the host; which image each query is about.
            features: From :meth:`prepare_image`.
            auxiliary: Also return the logits before the first and after every earlier layer, which the loss supervises.
            words: ``(N, W)`` sums of word vectors, where boxes or presence read them, else ``None``.

        Returns:
            Mask logits ``(N, H/4, W/4)`` after the last layer, presence logits ``(N,)``, auxiliary logits, and boxes if
            they are drawn.
        """
        query, index = pack(queries, image_index, len(features.mask_features))
        packed = None if words is None else pack(words, image_index, len(features.mask_features))[0]
        logits, presence, earlier, boxes = self.decode(query, features, auxiliary, packed)
        output = MaskOutput(logits[index], presence[index], [each[index] for each in earlier])
        if boxes is not None:
            output.boxes = boxes.transpose(1, 2)[index]
        return output

    def decode(
        self, query: Tensor, features: DecoderFeatures, auxiliary: bool = False, words: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor | None]:
        """Decodes queries that lie side by side, image by image.

        Args:
            query: ``(B, Q, C)``.
            features: From :meth:`prepare_image`.
            auxiliary: Also return the logits before the first and after every earlier layer.
            words: ``(B, Q, W)`` sums of word vectors.

        Returns:
            Mask logits ``(B, Q, H/4, W/4)``, presence logits ``(B, Q)``, the auxiliary logits, and, if boxes are drawn,
            those of all ``P`` predictions, the auxiliary ones first: ``(B, P, Q, 6)``.
        """
        predictions = [self._predict(query, words)]
        for i, layer in enumerate(self._layers()):
            visible = self._visible(predictions[-1], features, i % NUM_LEVELS)
            query = layer(query, *features.keys_values[i], visible)
            predictions.append(self._predict(query, words))
        # The masks of all predictions are one product: with a product each, the backward pass would go over the large
        # features once for every prediction.
        wanted = predictions if auxiliary else predictions[-1:]
        embeddings = torch.stack([embedding for embedding, _ in wanted], 1)
        logits = torch.einsum("bpqc,bchw->bpqhw", embeddings, features.mask_features)
        drawn = [box for _, box in wanted if box is not None]
        boxes = torch.stack(drawn, 1) if drawn else None
        if boxes is not None:
            logits = gate(logits, boxes)
        *earlier, last = logits.unbind(1)
        return last, self.predict_presence(query, features.mask_features, words), earlier, boxes

    def predict_presence(self, query: Tensor, mask_features: Tensor, words: Tensor | None) -> Tensor:
        """Returns presence logits ``(B, Q)`` of queries ``(B, Q, C)`` that have passed every layer."""
        presence = self.presence_head(self.norm(query))[..., 0]
        return presence if self.presence_match is None else presence + self.presence_match(words, mask_features)

    def _predict(self, query: Tensor, words: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns what a mask is made of: the vector to multiply the mask features by, and the box if one is drawn."""
        normed = self.norm(query)
        return self.mask_embed(normed), None if self.box_gate is None else self.box_gate(normed, words)

    @torch.no_grad()
    def _visible(self, prediction: tuple[Tensor, Tensor | None], features: DecoderFeatures, level: int) -> Tensor:
        """Returns where the last masks are positive, at the size of a level; see :func:`attention_mask`.

        A mask is a linear function of the features, and so is shrinking. So the mask made of shrunk features is the
        shrunk mask, and the features are shrunk only once for all queries and layers.
        """
        embedding, box = prediction
        logits = embedding @ features.shrunk_mask_features[level]
        if box is not None:
            factor = 2 ** (NUM_LEVELS - level)  # the mask features are 8, 4 and 2 times as large as the levels
            height, width = (-(-side // factor) for side in features.mask_features.shape[2:])  # rounded up, as in Swin
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
