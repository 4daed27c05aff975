"""Multiply-adds of each part, counted by fvcore."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segearth.benchmark.naive import plain_operators
from segearth.models.segearth import SegEarth
from segearth.structures import EncodedText


def count_flops(model: SegEarth, size: int, text: EncodedText, whole: EncodedText) -> dict[str, float]:
    """Counts what one question about a fresh image costs.

    fvcore counts a multiply and its add as one; attention and deformable sampling are counted by their definitions.

    Args:
        model: It is run once, to be traced.
        size: Side of the image.
        text: One prompt as this library reads it.
        whole: The same to its end, as the naive way reads it.

    Returns:
        Billions (10⁹) by part, and the totals ``"first question"`` and ``"naive question"``.
    """
    from fvcore.nn import FlopCountAnalysis

    options: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
    image = torch.zeros(1, 3, size, size, **options)

    def count(part: nn.Module, *inputs: Any) -> float:
        analysis = FlopCountAnalysis(part, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return float(analysis.total()) / 1e9

    with torch.no_grad(), plain_operators(model):
        maps = model.vision_encoder(image)
        language = model.language_model
        tokens = model.embed_prompt(model.token_compressor(maps[-1])).shape[1]
        head = language.dim * language.vocab_size / 1e9

        def words(count_: int) -> Tensor:
            return torch.zeros(1, count_, language.dim, **options)

        parts = {
            "vision encoder": count(model.vision_encoder, image),
            "pixel decoder": count(model.pixel_decoder, maps),
            "token compressor": count(model.token_compressor, maps[-1]),
            "prompt up to the image": count(_Reads(language), words(tokens)),
        }
        both = count(_Reads(language), words(tokens + text.lengths[0]))
        everything = tokens + whole.lengths[0]
        parts["question"] = both - parts["prompt up to the image"]
        query = torch.zeros(1, model.mask_decoder.dim, **options)
        mask_features, memory = model.pixel_decoder(maps)
        parts["mask"] = count(_Decodes(model), query, mask_features, *memory)
        naive_words = count(_Reads(language), words(everything)) + everything * head
    image_parts = sum(parts[name] for name in ("vision encoder", "pixel decoder", "token compressor"))
    return {
        **parts,
        "first question": sum(parts.values()),
        "naive question": image_parts + parts["vision encoder"] + naive_words + parts["mask"],
    }


class _Reads(nn.Module):
    def __init__(self, language: Any) -> None:
        super().__init__()
        self.body = language.causal_lm.base_model

    def forward(self, embeds: Tensor) -> Tensor:
        return self.body(inputs_embeds=embeds, use_cache=False).last_hidden_state


class _Decodes(nn.Module):
    """What follows the pixel decoder, which is not counted here."""

    def __init__(self, model: SegEarth) -> None:
        super().__init__()
        self.model = model

    def forward(self, query: Tensor, mask_features: Tensor, *memory: Tensor) -> Tensor:
        remembered = self.model.mask_decoder.remember(mask_features, list(memory))
        return self.model.mask_decoder(query, torch.zeros(1, dtype=torch.long), remembered).mask_logits
