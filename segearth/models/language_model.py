"""A causal language model of transformers, held as an attribute and asked for hidden states only.

Shapes: ``N`` prompts, ``L`` tokens, ``D`` width, ``V`` vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.layers.blocks import Freezable
from segearth.model_types import KeysValues, KVCache, PromptPrefix
from segearth.models.packing import PackedRows, plan_rows
from segearth.utils.hub import find_source
from segearth.utils.text import first_line
from segearth.utils.torchvision_mend import mend_torchvision

if TYPE_CHECKING:
    from segearth.config import LanguageModelConfig


class LanguageModel(Freezable):
    """Wraps any causal language model that takes ``inputs_embeds``.

    Attributes:
        causal_lm: The transformers model.
        pretrained: Whether building it loaded weights, so that it may be frozen.
        dim: Width ``D`` of its embeddings.
        packs: Whether the questions of an image can share a row. For this the model must take the position of each
            token and a mask for every pair of tokens; models with ALiBi and recurrent ones do not. They read each
            question in a row of its own.
    """

    def __init__(self, causal_lm: Any, frozen: bool = False, pretrained: bool = False) -> None:
        """Wraps a model.

        Args:
            causal_lm: A ``transformers`` ``…ForCausalLM``.
            frozen: Keep its weights fixed and its dropout off.
            pretrained: Whether it has loaded weights.
        """
        super().__init__()
        self.causal_lm = causal_lm
        self.pretrained = pretrained
        self.dim = int(causal_lm.get_input_embeddings().embedding_dim)
        parameters = inspect.signature(causal_lm.base_model.forward).parameters
        self.packs = {"position_ids", "past_key_values", "attention_mask"} <= parameters.keys()
        if frozen:
            self.freeze()

    def blocks(self) -> list[nn.Module]:
        """The layers that activation checkpointing runs again in the backward pass."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        return [module for module in self.causal_lm.modules() if isinstance(module, GradientCheckpointingLayer)]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return int(self.causal_lm.get_input_embeddings().num_embeddings)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its embeddings."""
        # Not by `.weight`: under ZeRO-3 that look-up makes all processes send each other the whole table, only to learn
        # its precision. Going through parameters() does not.
        return next(self.causal_lm.get_input_embeddings().parameters()).dtype

    @contextmanager
    def exact_buffers(self) -> Iterator[None]:
        """While weights are cast to another precision, keeps buffers as they are.

        The frequencies of rotary position embeddings are buffers. They are multiplied by a token's position, so what
        bf16 rounds off them grows with the position: the model would take tokens far down a prompt to stand elsewhere.
        """
        kept = [(module, name, b) for module in self.modules() for name, b in module.named_buffers(recurse=False)]
        yield
        for module, name, buffer in kept:
            setattr(module, name, buffer.to(getattr(module, name).device))

    def describe(self) -> dict[str, Any]:
        """Returns the fields of :class:`LanguageModelConfig` that build this architecture from nothing."""
        config = self.causal_lm.config
        dropped = {"model_type", "architectures", "transformers_version", "dtype", "_name_or_path"}
        keywords = {key: value for key, value in config.to_diff_dict().items() if key not in dropped}
        keywords["vocab_size"] = self.vocab_size
        head_bias = getattr(self.causal_lm.get_output_embeddings(), "bias", None) is not None
        return {"pretrained": None, "model_type": config.model_type, "config": keywords, "head_bias": head_bias}

    def embed(self, input_ids: Tensor) -> Tensor:
        """Returns the embeddings of ``(N, L)`` token ids, ``(N, L, D)``."""
        return self.causal_lm.get_input_embeddings()(input_ids)

    def make_prefix(self, embeds: Tensor, cached: bool = True) -> PromptPrefix:
        """Makes what all questions about an image share: their prompt up to and including the image.

        Args:
            embeds: ``(B, P, D)``.
            cached: Read it now and keep its keys and values, to serve every question; else it is read together with
                the questions, in one pass. A model that does not pack questions caches nothing.
        """
        if not cached or not self.packs:
            return PromptPrefix(embeds)
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        self.causal_lm.base_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        return PromptPrefix(embeds, KVCache(_keys_values(cache), {}, embeds[:, :0]))

    def hidden_states(
        self,
        prefix: PromptPrefix,
        embeds: Tensor,
        lengths: Sequence[int],
        image_index: Tensor,
        openings: Sequence[tuple[str, int]] = (),
    ) -> Tensor:
        """Reads questions, each after the prefix of its image.

        The questions of an image share a row, in which the prefix and each opening stand once. They do not see each
        other, so the answer to one does not depend on what else is asked.

        Args:
            prefix: From :meth:`make_prefix`. If it has a cache, openings that are not in it yet are added to it.
            embeds: ``(N, L, D)`` of what follows the image, padded on the right.
            lengths: Real tokens of each.
            image_index: ``(N,)`` ascending, on the host; which image each is about.
            openings: As in :class:`EncodedText`; left out where nothing is shared.

        Returns:
            ``(N, L, D)`` last normalised hidden states, zero at padding.
        """
        if not self.packs:
            return self._read_one_a_row(prefix, embeds, image_index)
        known = prefix.kv_cache
        images, prefix_length = prefix.embeds.shape[:2]
        cached = None if known is None else known.openings
        shared = openings or [("", 0)] * len(lengths)
        rows = plan_rows(lengths, shared, image_index, images, prefix_length, cached).to(embeds.device)
        inputs, cache = rows.pack(embeds), None
        if known is None:
            inputs = torch.cat([prefix.embeds, inputs], 1)
        else:
            from transformers import DynamicCache

            cache = DynamicCache()
            for i, (keys, values) in enumerate(known.keys_values):
                cache.update(keys, values, i)
        states = self.causal_lm.base_model(
            inputs_embeds=inputs,
            attention_mask=additive(rows.visible(), inputs.dtype)[:, None],
            position_ids=rows.position[:, rows.start :],
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        if known is None:
            states = states[:, prefix_length:]
        else:
            states = torch.cat([known.opening_states, states], 1)
            if rows.openings != known.openings:
                prefix.kv_cache = _with_openings(cache, rows, states)
        return rows.unpack(states, (len(embeds), embeds.shape[1]))

    def _read_one_a_row(self, prefix: PromptPrefix, embeds: Tensor, image_index: Tensor) -> Tensor:
        """Reads each question in a row of its own that repeats the prefix.

        No mask is needed: padding stands on the right, and each token sees only what stands to its left.
        """
        rows = torch.cat([prefix.embeds[image_index], embeds], 1)
        hidden = self.causal_lm.base_model(inputs_embeds=rows, use_cache=False).last_hidden_state
        return hidden[:, prefix.embeds.shape[1] :]

    def token_logits(self, hidden_states: Tensor) -> Tensor:
        """Returns the vocabulary logits ``(T, V)`` of ``T`` hidden states ``(T, D)``."""
        return self.causal_lm.get_output_embeddings()(hidden_states)

    @torch.no_grad()
    def generate(self, prefixes: Tensor, embeds: Tensor, lengths: Sequence[int], **options: Any) -> Tensor:
        """Continues prompts, always with the likeliest token.

        Args:
            prefixes: ``(N, P, D)`` embeddings up to and including the image.
            embeds: ``(N, L, D)`` of what follows, padded on the right.
            lengths: Real tokens of each.
            options: Passed to ``generate`` of transformers (``max_new_tokens``, ``eos_token_id`` …).

        Returns:
            ``(N, new)`` ids of the new tokens alone.
        """
        whole = torch.cat([prefixes, embeds], 1)
        padding = embeds.shape[1] - torch.tensor(lengths, device=embeds.device)
        # New tokens are appended at the right end of every row, so padding must be on the left: each row is shifted to
        # the right by its padding, and what leaves it there, which is padding, comes in at the left.
        column = torch.arange(whole.shape[1], device=embeds.device)
        source = (column - padding[:, None]) % whole.shape[1]
        shifted = whole.gather(1, source[..., None].expand_as(whole))
        real = column >= padding[:, None]
        return self.causal_lm.generate(inputs_embeds=shifted, attention_mask=real.long(), do_sample=False, **options)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turns a mask of what is visible into what is added to attention scores: 0, or the most negative number."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def _keys_values(cache: Any) -> list[KeysValues]:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _with_openings(cache: Any, rows: PackedRows, states: Tensor) -> KVCache:
    """Copies what was read of prefix and openings; a view would keep the questions' part in memory as well."""

    def copy(part: Tensor, dim: int, end: int) -> Tensor:
        return part.detach().narrow(dim, 0, end).clone()

    count = sum(rows.openings.values())
    end = rows.prefix + count
    keys_values = [(copy(keys, 2, end), copy(values, 2, end)) for keys, values in _keys_values(cache)]
    return KVCache(keys_values, rows.openings, copy(states, 1, count))


def build_language_model(config: LanguageModelConfig, vocab_size: int, load_weights: bool = True) -> LanguageModel:
    """Builds the language model a config describes, with an embedding row for each token.

    Args:
        config: ``pretrained`` names a hub id or folder; else ``model_type`` and ``config`` make it from nothing.
        vocab_size: Tokens of the tokenizer, special ones included.
        load_weights: Load pretrained weights; ``False`` takes only the architecture, when weights follow from
            elsewhere.

    Raises:
        UnknownNameError: transformers has no such ``model_type``.
        ConfigError: The keyword arguments do not fit that type.
        CheckpointError: The pretrained model cannot be read.
    """
    if config.pretrained:
        model = _open_pretrained(config, load_weights)
        _add_rows(model, vocab_size)
    else:
        model = _build_from_nothing(config, vocab_size)
    if not config.head_bias:
        model.get_output_embeddings().register_parameter("bias", None)
    _fuse_gelu(model)
    return LanguageModel(model, config.frozen, pretrained=bool(config.pretrained) and load_weights)


def _fuse_gelu(causal_lm: nn.Module) -> None:
    """Replaces transformers' eight-step ``gelu_new`` by torch's one-step operator of the same formula."""
    from transformers.activations import NewGELUActivation

    for module in causal_lm.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def with_mean_rows(table: Tensor, rows: int) -> Tensor:
    """Adds rows for new tokens to an embedding table or output head, ``(V, …)`` → ``(rows, …)``.

    Each is the mean of the rows that were there, so that a new token starts with an embedding and a logit like those of
    others. With random rows its logit could be the highest of all, and the model would answer with it (Hewitt 2021,
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    mean = table.mean(0, keepdim=True)
    return torch.cat([table, mean.expand(max(0, rows - len(table)), *table.shape[1:])])


def _add_rows(causal_lm: Any, vocab_size: int) -> None:
    rows = causal_lm.get_input_embeddings().num_embeddings
    if rows >= vocab_size:
        return
    causal_lm.resize_token_embeddings(vocab_size, mean_resizing=False)
    with torch.no_grad():
        for module in (causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()):
            for parameter in module.parameters():
                parameter.copy_(with_mean_rows(parameter[:rows], vocab_size))


def _open_pretrained(config: LanguageModelConfig, load_weights: bool) -> Any:
    mend_torchvision()
    from transformers import AutoConfig, AutoModelForCausalLM

    source = find_source(str(config.pretrained), "language model")
    if isinstance(source, Path) and not (source / "config.json").is_file():
        # transformers would go on to the hub for the base model that an adapter's own file names.
        raise CheckpointError(f"language model {str(source)!r} holds no config.json; merge adapters into their model")
    name = str(source)
    auto: Any = AutoModelForCausalLM  # transformers types its return without the loading info
    try:
        if not load_weights:
            return auto.from_config(AutoConfig.from_pretrained(name, trust_remote_code=False, **config.config))
        options = {"dtype": torch.float32, "output_loading_info": True, "trust_remote_code": False}
        model, loading = auto.from_pretrained(name, **options)
    except Exception as error:  # transformers, its hub client and the network raise unrelated classes
        raise CheckpointError(f"language model {name!r} cannot be loaded: {first_line(error)}") from error
    if missing := sorted(loading["missing_keys"]):  # transformers would leave these at random
        raise CheckpointError(
            f"language model {name!r} lacks {len(missing)} tensors, {', '.join(missing[:3])} …; an early Phi's fused "
            "attention is split by `segearth zoo convert`"
        )
    if unknown := sorted(loading["unexpected_keys"]):  # transformers would leave these out
        raise CheckpointError(f"language model {name!r} has {len(unknown)} unknown tensors, {', '.join(unknown[:3])} …")
    return model


def _build_from_nothing(config: LanguageModelConfig, vocab_size: int) -> Any:
    mend_torchvision()
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnknownNameError("language model type", config.model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if config.config.get("vocab_size", vocab_size) < vocab_size:
        raise ConfigError(
            f"language_model: {config.config['vocab_size']} embedding rows but the tokenizer has {vocab_size} tokens; "
            "use the tokenizer saved with these weights"
        )
    arguments = {"vocab_size": vocab_size, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    try:
        lm_config = AutoConfig.for_model(config.model_type, **{**arguments, **config.config})
        model: Any = AutoModelForCausalLM.from_config(lm_config)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"language_model: {config.model_type} refuses its config: {error}") from error
    model.tie_weights()  # transformers 5.0 leaves it out on the meta device
    return model
