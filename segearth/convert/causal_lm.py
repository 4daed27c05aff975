"""Translates causal language models of transformers to this library's names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from segearth.convert.rules import Rule, Translation, Unused, simple, to_ours
from segearth.errors import CheckpointError

PREFIX = "language_model.causal_lm."
ROTARY_REASON = "rotary frequencies follow from the configuration and are computed here"


def fused_attention_rule(theirs: str, ours: str, num_heads: int) -> Rule:
    """Returns the rule for ``query_key_value`` of an early Phi, which holds query, key and value of each head in turn.

    Args:
        theirs: Template of the attention module's prefix in their names.
        ours: Template of the prefix in our names.
        num_heads: Number of attention heads.
    """
    return Rule(
        theirs + "query_key_value.{p}",
        (ours + "q_proj.{p}", ours + "k_proj.{p}", ours + "v_proj.{p}"),
        partial(split_interleaved, num_heads=num_heads),
        partial(join_interleaved, num_heads=num_heads),
    )


def split_interleaved(fused: Tensor, num_heads: int) -> Sequence[Tensor]:
    """Splits ``(heads · 3 · head_dim, …)`` to query, key and value, each ``(heads · head_dim, …)``."""
    parts = fused.unflatten(0, (num_heads, 3, -1))
    return [parts[:, i].flatten(0, 1) for i in range(3)]


def join_interleaved(parts: Sequence[Tensor], num_heads: int) -> Tensor:
    """Undoes :func:`split_interleaved`."""
    return torch.stack([part.unflatten(0, (num_heads, -1)) for part in parts], 1).flatten(0, 2)


def from_causal_lm(
    state: Mapping[str, Tensor], num_heads: int, origin: str = "language model", known: Sequence[str] = ()
) -> Translation:
    """Translates a causal language model's own state dict.

    Args:
        state: Tensors under the names of its transformers class; an early Phi's fused attention is split.
        num_heads: Number of attention heads, needed for the split.
        origin: Named in errors.
        known: The names of the tensors of our language model, without our prefix. Any other name is an error.

    Raises:
        CheckpointError: The state dict has a name that our model does not have.
    """
    attention = "model.layers.{i}.self_attn."
    rules = [simple(name, PREFIX + name) for name in known]
    rules += [fused_attention_rule(attention, PREFIX + attention, num_heads)]
    return to_ours(state, rules, [Unused("{*}rotary_emb.inv_freq", ROTARY_REASON)], origin)


def count_layers(names: Iterable[str], pattern: str, origin: str = "checkpoint") -> int:
    """Counts the layers of a model from its tensors' names; the first group of ``pattern`` is a layer's number.

    Raises:
        CheckpointError: The numbers do not run from 0 without a gap; the first name beyond the gap is given.
    """
    found: dict[int, str] = {}
    for name in names:
        if match := re.match(pattern, name):
            found.setdefault(int(match[1]), name)
    for count, number in enumerate(sorted(found)):
        if number != count:
            raise CheckpointError(f"{origin}: there is no layer {count} but {found[number]}")
    return len(found)
