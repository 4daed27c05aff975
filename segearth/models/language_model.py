"""A causal language model of transformers, held as an attribute and asked for hidden states only.

Shapes: ``N`` prompts, ``L`` tokens, ``D`` width, ``V`` vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.layers.blocks import set_frozen
from segearth.utils.torchvision_mend import mend_torchvision

if TYPE_CHECKING:
    from segearth.config import LanguageModelConfig


class LanguageModel(nn.Module):
    """Wraps any causal language model that takes ``inputs_embeds``.

    Prompts are padded on the right: under a causal mask no real token ever sees padding, so no attention mask is
    needed and neighbours in a batch cannot change an answer.

    Attributes:
        causal_lm: The transformers model.
        dim: Width ``D`` of its embeddings.
    """

    def __init__(self, causal_lm: Any, frozen: bool = False) -> None:
        """Wraps a model.

        Args:
            causal_lm: A ``transformers`` ``…ForCausalLM``.
            frozen: Keep its weights fixed and its dropout off.
        """
        super().__init__()
        self.causal_lm = causal_lm
        self.frozen = frozen
        self.dim = int(causal_lm.get_input_embeddings().embedding_dim)
        if frozen:
            set_frozen(self)

    def train(self, mode: bool = True) -> LanguageModel:
        """Sets the mode; a frozen model stays in eval mode."""
        return super().train(mode and not self.frozen)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return int(self.causal_lm.get_input_embeddings().num_embeddings)

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model was built for; ``None`` where it has no limit."""
        return getattr(self.causal_lm.config, "max_position_embeddings", None)

    def describe(self) -> dict[str, Any]:
        """Returns the fields of :class:`LanguageModelConfig` that build this architecture from nothing."""
        config = self.causal_lm.config
        dropped = {"model_type", "architectures", "transformers_version", "dtype", "_name_or_path"}
        keywords = {key: value for key, value in config.to_diff_dict().items() if key not in dropped}
        keywords["vocab_size"] = self.vocab_size
        head_bias = getattr(self.causal_lm.get_output_embeddings(), "bias", None) is not None
        return {"pretrained": None, "model_type": config.model_type, "config": keywords, "head_bias": head_bias}

    def embed(self, input_ids: Tensor) -> Tensor:
        """Looks ``(N, L)`` ids up: ``(N, L, D)``."""
        return self.causal_lm.get_input_embeddings()(input_ids)

    def hidden_states(self, inputs_embeds: Tensor) -> Tensor:
        """Runs right-padded ``(N, L, D)`` embeddings to the last normalised hidden states, ``(N, L, D)``."""
        body = self.causal_lm.base_model
        return body(inputs_embeds=inputs_embeds, use_cache=False).last_hidden_state

    def token_logits(self, hidden_states: Tensor) -> Tensor:
        """Vocabulary logits ``(P, V)`` of ``P`` chosen positions ``(P, D)``."""
        return self.causal_lm.get_output_embeddings()(hidden_states)

    @torch.no_grad()
    def generate(self, inputs_embeds: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """Continues *left*-padded prompts greedily.

        Args:
            inputs_embeds: ``(N, L, D)``.
            attention_mask: ``(N, L)``.
            options: Passed to ``generate`` of transformers (``max_new_tokens``, ``eos_token_id`` …).

        Returns:
            ``(N, new)`` ids of the new tokens alone.
        """
        return self.causal_lm.generate(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask.long(), do_sample=False, **options
        )


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
    return LanguageModel(model, config.frozen)


def with_mean_rows(table: Tensor, rows: int) -> Tensor:
    """Adds rows for new tokens to an embedding table or output head, ``(V, …)`` → ``(rows, …)``.

    They are the mean of the others, so that a new token's first logit and embedding are ordinary ones (Hewitt 2021,
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

    name = str(config.pretrained)
    auto: Any = AutoModelForCausalLM  # transformers types its return without the loading info
    try:
        if not load_weights:
            return auto.from_config(AutoConfig.from_pretrained(name, trust_remote_code=False, **config.config))
        options = {"dtype": torch.float32, "output_loading_info": True, "trust_remote_code": False}
        model, loading = auto.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"language model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}"
        ) from error
    if missing := sorted(loading["missing_keys"]):  # transformers would leave these at random
        raise CheckpointError(
            f"language model {name!r} lacks {len(missing)} tensors, {', '.join(missing[:3])} …; an early Phi's fused "
            "attention is split by `segearth zoo convert`"
        )
    if unknown := sorted(loading["unexpected_keys"]):  # and lose these
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
        return AutoModelForCausalLM.from_config(lm_config)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"language_model: {config.model_type} refuses its config: {error}") from error
