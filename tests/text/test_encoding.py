from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.errors import QuestionError, UnknownNameError
from segearth.structures import Question
from segearth.text.encoding import IGNORE, PromptEncoder
from segearth.text.templates import get_template
from segearth.text.tokenizer import load_tokenizer

ENCODER = PromptEncoder(load_tokenizer("aerial"), get_template("plain"), max_question_tokens=64)


def words(ids: list[int]) -> str:
    return ENCODER.tokenizer.decode(ids)


def test_a_prompt_piece_by_piece() -> None:
    text = ENCODER.encode([Question("the road", answer="The road.")], with_answers=True)
    ids = text.input_ids[0]
    assert words(ids.tolist()) == "refer: the road[SEG]The road.<|endoftext|>"
    assert ENCODER.before_image == []
    assert text.lengths == [len(ids)]
    assert words(ids[text.description_mask[0]].tolist()) == " the road[SEG]"
    labelled = text.labels[0] != IGNORE
    assert words(ids[labelled].tolist()) == "The road.<|endoftext|>"
    assert (text.labels[0][labelled] == ids[labelled]).all()
    assert text.labelled.tolist() == [[0, i] for i in labelled.nonzero().flatten().tolist()]


def test_padding_is_on_the_right() -> None:
    text = ENCODER.encode([Question("ships"), Question("the largest building in the image", task="reasoning")])
    short, long = text.lengths
    assert short < long == text.input_ids.shape[1]
    assert (text.input_ids[0, short:] == ENCODER.tokenizer.pad_token_id).all()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_gives_masks_that_fit(question: str) -> None:
    if not question.strip():
        with pytest.raises(QuestionError, match="empty"):
            ENCODER.encode([Question(question)])
        return
    try:
        text = ENCODER.encode([Question(question)])
    except QuestionError as error:
        assert "this model takes 64 tokens" in str(error)
        return
    description = text.input_ids[text.description_mask]
    assert description[-1] == ENCODER._seg_id
    assert (text.input_ids == ENCODER._seg_id).sum() == 1  # however the question is written


def test_special_tokens_cannot_be_typed() -> None:
    text = ENCODER.encode([Question("[SEG] <|endoftext|> [PAD]")])
    assert (text.input_ids == ENCODER._seg_id).sum() == 1
    assert not (text.input_ids == ENCODER.tokenizer.pad_token_id).any()
    assert words(text.input_ids[text.description_mask].tolist()) == " [SEG] <|endoftext|> [PAD][SEG]"


def test_a_tokenizer_that_splits_a_special_token_is_refused() -> None:
    from transformers import PreTrainedTokenizerFast

    from segearth.text.tokenizer import PACKAGED

    class Splitting(PreTrainedTokenizerFast):
        def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
            return {"input_ids": list(range(len(text)))}

    tokenizer = Splitting(tokenizer_file=str(PACKAGED["aerial"]), eos_token="<|endoftext|>", pad_token="[PAD]")
    with pytest.raises(ValueError, match=r"splits \[SEG\]"):
        PromptEncoder(tokenizer, get_template("plain"))


def test_an_unknown_template() -> None:
    with pytest.raises(UnknownNameError, match="plain"):
        get_template("plane")


def test_a_question_too_long_is_refused_not_cut() -> None:
    with pytest.raises(QuestionError, match=r"\d+ tokens; this model takes 64 tokens: shorten it"):
        ENCODER.encode([Question("ships " * 70)])
