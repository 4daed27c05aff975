"""A row for each token: never fewer, and none lost or made up where the model brings more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from segearth.config import LanguageModelConfig
from segearth.errors import ConfigError
from segearth.models.language_model import build_language_model

TOKENS = 40
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def built(**config: Any) -> Any:
    return build_language_model(LanguageModelConfig(**config), TOKENS)


@pytest.mark.parametrize(("rows", "expected"), [(None, TOKENS), (TOKENS, TOKENS), (TOKENS + 1, TOKENS + 1), (64, 64)])
def test_rows_of_a_model_built_from_nothing(rows: int | None, expected: int) -> None:
    """More rows than tokens are usual: tables are padded to a round number, and a saved model keeps them."""
    model = built(model_type="phi", config=SIZES | ({} if rows is None else {"vocab_size": rows}))
    assert model.vocab_size == expected
    assert model.token_logits(torch.zeros(1, 16)).shape == (1, expected)


@pytest.mark.parametrize("rows", [TOKENS - 1, 1])
def test_more_tokens_than_rows_are_refused(rows: int) -> None:
    """The last tokens would have no embedding: the tokenizer is not that of these weights."""
    with pytest.raises(ConfigError, match=f"{rows} embedding rows but the tokenizer has {TOKENS} tokens"):
        built(model_type="phi", config=SIZES | {"vocab_size": rows})


@pytest.mark.parametrize("rows", [TOKENS - 3, TOKENS, TOKENS + 8])
def test_a_pretrained_model_gets_the_rows_it_lacks_and_keeps_its_own(tmp_path: Path, rows: int) -> None:
    from transformers import AutoModelForCausalLM, PhiConfig

    torch.manual_seed(0)
    source: Any = AutoModelForCausalLM.from_config(PhiConfig(**SIZES, vocab_size=rows))
    torch.nn.init.normal_(source.lm_head.bias)
    source.save_pretrained(tmp_path)
    model = built(pretrained=str(tmp_path))
    assert model.vocab_size == max(rows, TOKENS)
    for table, own in (
        (model.causal_lm.get_input_embeddings().weight, source.get_input_embeddings().weight),
        (model.causal_lm.get_output_embeddings().weight, source.lm_head.weight),
        (model.causal_lm.get_output_embeddings().bias, source.lm_head.bias),
    ):
        assert len(table) == max(rows, TOKENS)
        assert torch.equal(table[:rows], own)
        for added in table[rows:]:  # the mean of the others: a first logit and embedding like any
            assert torch.allclose(added, own.mean(0), atol=1e-6)
