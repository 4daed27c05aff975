"""The same weights used the naive way, as the public SegEarth-R1 uses its own.

Each question is asked alone: the image goes through the vision encoder twice, the prompt is read to its end with every
attention map kept and vocabulary logits at every position, a latent is computed for every word, and attention and
deformable sampling follow their definitions. Answers are the same; this is what the shortcuts are measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.layers.deformable_attention import multi_scale_sample_definition
from segearth.model_types import EncodedText, MaskOutput, QueryEmbeddings
from segearth.models.description_projector import pool_description
from segearth.models.mask_decoder import MaskDecoder
from segearth.models.segearth import SegEarth
from segearth.models.word_heads import gate


def naive_answer(model: SegEarth, image: Tensor, text: EncodedText) -> tuple[MaskOutput, QueryEmbeddings]:
    """Answers one question about one image.

    Args:
        model: Any model.
        image: ``(1, 3, H, W)``, normalised.
        text: One prompt, encoded to its end (``whole=True``).

    Returns:
        What ``SegEarth.decode_masks`` returns, with auxiliary logits, and what ``SegEarth.encode_text`` returns.
    """
    with plain_operators(model):
        tokens = model.token_compressor(model.vision_encoder(image)[-1])
        maps = model.vision_encoder(image)
        mask_features, multi_scale_features, res5 = model.decode_pixels(maps)
        reading = _read(model, tokens, text)
        query = _project(model, reading.hidden, text.description_mask, res5)
        output = _masks(model, query, mask_features, multi_scale_features, text)
        return output, QueryEmbeddings(query, torch.zeros(1, dtype=torch.long), reading.hidden)


@torch.no_grad()
def naive_parts(model: SegEarth, image: Tensor, text: EncodedText) -> dict[str, Callable[[], Any]]:
    """Cuts :func:`naive_answer` into parts, each to be run without gradients as often as one likes.

    The image's part of the prompt is read with the question. Arguments as there.
    """

    def plain(work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with plain_operators(model):
                return work()

        return run

    def question() -> Any:
        reading = _read(model, tokens, text)
        return reading, _project(model, reading.hidden, text.description_mask, res5)

    maps = model.vision_encoder(image)
    tokens = model.token_compressor(maps[-1])
    mask_features, multi_scale_features, res5 = model.decode_pixels(maps)
    query = plain(question)()[1]
    works: dict[str, Callable[[], Any]] = {
        "vision encoder": lambda: (model.vision_encoder(image), model.vision_encoder(image)),
        "pixel decoder": lambda: model.decode_pixels(maps),
        "token compressor": lambda: model.token_compressor(maps[-1]),
        "question": question,
        "mask": lambda: _masks(model, query, mask_features, multi_scale_features, text),
    }
    return {name: plain(work) for name, work in works.items()}


@dataclass
class _Reading:
    hidden: Tensor  # (1, T, D), hidden states of the words after the image
    result: Any  # the language model's output, with its attention maps
    vocabulary_logits: Tensor  # at every position; like the attention maps they are kept until the question is answered


def _read(model: SegEarth, tokens: Tensor, text: EncodedText) -> _Reading:
    language = model.language_model
    prefix = model.embed_prefix(tokens)
    rows = torch.cat([prefix, language.embed(text.input_ids)], 1)
    result = language.causal_lm.base_model(inputs_embeds=rows, use_cache=False, output_attentions=True)
    states = result.last_hidden_state
    return _Reading(states[:, prefix.shape[1] :], result, language.token_logits(states[0]))


def _project(model: SegEarth, hidden: Tensor, description: Tensor, res5: Tensor) -> Tensor:
    """Projects a latent for each word beside their average, although only the average is used in the end."""
    projector = model.description_projector
    pooled = pool_description(hidden, description)
    latents = torch.cat([pooled, hidden[0, description[0]]])
    index = torch.zeros(len(latents), dtype=torch.long)
    return projector(latents, projector.keys_values(res5), index)[:1]


def _masks(
    model: SegEarth, query: Tensor, mask_features: Tensor, multi_scale_features: list[Tensor], text: EncodedText
) -> MaskOutput:
    words = model.sum_words(text)
    output = _decode(model.mask_decoder, query, mask_features, multi_scale_features, words)
    if model.region_chooser is not None:
        assert words is not None  # a model that chooses has word vectors
        output.mask_logits, _ = model.region_chooser(output.mask_logits, words)
    return output


def _decode(
    decoder: MaskDecoder, query: Tensor, mask_features: Tensor, multi_scale_features: list[Tensor], words: Tensor | None
) -> MaskOutput:
    """Computes a whole mask after every layer, and shrinks it to the attention mask of the next layer."""
    keys_values = decoder.keys_values(multi_scale_features)
    query, logits = query[None], []
    for i in range(len(decoder.layers) + 1):
        normed = decoder.norm(query)
        box = None if decoder.box_gate is None or words is None else decoder.box_gate(normed, words[None])
        mask = torch.einsum("bqc,bchw->bqhw", decoder.mask_embed(normed), mask_features)
        logits.append(mask if box is None else gate(mask, box))
        if i < len(decoder.layers):
            shape = multi_scale_features[i % len(multi_scale_features)].shape[2:]
            shrunk = F.interpolate(mask.detach().float(), shape, mode="bilinear", align_corners=False)
            shrunk = shrunk if box is None else gate(shrunk, box.detach())
            visible = shrunk.flatten(2) >= 0
            query = decoder.layers[i](query, *keys_values[i], visible | ~visible.any(-1, keepdim=True))
    *earlier, last = [each[0] for each in logits]
    presence = decoder.predict_presence(query, mask_features, None if words is None else words[None])
    return MaskOutput(last, presence[0], earlier)


@contextmanager
def plain_operators(model: SegEarth) -> Iterator[None]:
    """Replaces fused operators by their definitions inside the block, and switches off recomputation."""
    causal_lm, pixel_decoder = model.language_model.causal_lm, model.pixel_decoder
    before = causal_lm.config._attn_implementation, pixel_decoder.recomputes
    causal_lm.set_attn_implementation("eager")
    pixel_decoder.recomputes = False
    try:
        with (
            pixel_decoder.sampling_with(multi_scale_sample_definition),
            mock.patch.object(F, "scaled_dot_product_attention", plain_attention),
            mock.patch.object(F, "gelu", _plain_gelu),
        ):
            yield
    finally:
        causal_lm.set_attn_implementation(before[0])
        pixel_decoder.recomputes = before[1]


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    """Attention as it is defined, with the whole attention map in memory; arguments as in PyTorch's function."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if options.get("is_causal"):
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1) @ value


def _plain_gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """GELU's tanh approximation as separate operations, like ``gelu_new`` of transformers."""
    if approximate == "none":
        return torch.ops.aten.gelu(x)
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
