"""Loads a tokenizer (the small one in this package, or one from a hub or folder) and adds the special tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segearth.errors import CheckpointError
from segearth.text.encoding import SEG_TOKEN
from segearth.utils.files import atomic_path
from segearth.utils.hub import find_source
from segearth.utils.text import first_line
from segearth.utils.torchvision_mend import mend_torchvision

PACKAGED = {"aerial": Path(__file__).parent / "aerial_tokenizer.json"}
PAD_TOKEN, EOS_TOKEN = "[PAD]", "<|endoftext|>"


def load_tokenizer(name: str) -> Any:
    """Loads a tokenizer and adds the special tokens it lacks.

    Args:
        name: ``"aerial"`` (a byte-level BPE trained on this library's questions; any text can be encoded), or a hub id
            or folder for ``AutoTokenizer``.

    Returns:
        A fast tokenizer of transformers, with ``[SEG]``, a padding and an end-of-text token.

    Raises:
        CheckpointError: The hub id or folder cannot be read, or ``name`` is neither of them (see
            :func:`segearth.utils.hub.find_source`).
    """
    mend_torchvision()
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer: Any
    if name in PACKAGED:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(PACKAGED[name]), eos_token=EOS_TOKEN, pad_token=PAD_TOKEN,
            clean_up_tokenization_spaces=False
        )
    else:
        source = str(find_source(name, "tokenizer"))
        try:
            with _quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # as for a language model: unrelated classes, some of them without a message
            raise CheckpointError(f"tokenizer {name!r} cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if len(tokenizer(SEG_TOKEN, add_special_tokens=False)["input_ids"]) != 1:
        tokenizer.add_tokens([SEG_TOKEN], special_tokens=True)
    return tokenizer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silences the warning that transformers gives when the tokenizer's folder also holds a model it does not know."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def train_tokenizer(sentences: Iterable[str], path: str | Path, vocab_size: int = 1536) -> None:
    """Trains a byte-level BPE tokenizer and writes it as one JSON file.

    Args:
        sentences: Text from which the most frequent pieces of words are learned.
        path: File to write.
        vocab_size: Size of the vocabulary, special tokens included.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS_TOKEN, PAD_TOKEN, SEG_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    with atomic_path(path) as temporary:
        tokenizer.save(str(temporary))
