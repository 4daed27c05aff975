"""Translates the weights of timm's Swin to this library's names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from segearth.convert.mask2former import POSITION_INDEX_REASON
from segearth.convert.rules import Translation, Unused, simple, to_ours

BLOCK, OURS = "layers.{s}.blocks.{b}.", "vision_encoder."
RULES = [
    simple("patch_embed.proj.{p}", OURS + "patch_embed.{p}"),
    simple("patch_embed.norm.{p}", OURS + "patch_norm.{p}"),
    *(
        simple(BLOCK + name, OURS + "stages.{s}.{b}." + name)
        for name in (
            "norm1.{p}", "norm2.{p}", "attn.qkv.{p}", "attn.proj.{p}", "attn.relative_position_bias_table",
            "mlp.fc1.{p}", "mlp.fc2.{p}",
        )
    ),
    # timm merges patches at the start of a stage, we at the end of the stage before it.
    *(
        simple(f"layers.{s + 1}.downsample.{name}", f"{OURS}downsamples.{s}.{name}")
        for s in range(3)
        for name in ("norm.{p}", "reduction.{p}")
    ),
    simple("norm.{p}", OURS + "norms.3.{p}"),
]  # fmt: skip
UNUSED = [
    Unused(BLOCK + "attn.relative_position_index", POSITION_INDEX_REASON),
    Unused(BLOCK + "attn_mask", "follows from the image's size and is computed here"),
    Unused("head.{*}", "its classifier: here nothing is classified"),
]
# A classifier has an output norm after its last stage only. Those of the other stages keep their initial values.
NOT_IN_TIMM = [f"{OURS}norms.{s}.{p}" for s in range(3) for p in ("weight", "bias")]


def from_timm_swin(state: Mapping[str, Tensor], origin: str = "timm Swin") -> Translation:
    """Translates the state dict of a timm ``swin_*`` classifier; :data:`NOT_IN_TIMM` lists the weights it lacks.

    Args:
        state: Tensors by name.
        origin: Named in errors.

    Raises:
        CheckpointError: A tensor's name is not known, for instance because it is a Swin V2, which is another model.
    """
    return to_ours(state, RULES, UNUSED, origin)
