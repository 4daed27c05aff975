"""A language model that makes of a question the short noun phrase that a concept segmenter was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from segearth.prompting.opening import explained, open_pretrained, quiet
from segearth.utils.hub import find_source

INSTRUCTION = (
    "Name what to look for in an overhead image to answer the question, as a noun phrase of one to four words, without "
    "article, place or explanation.\nQuestion: {question}\nNoun phrase:"
)
ANSWERS_KEPT = 10_000  # of questions asked again and again, such as those of an evaluation's controls


class PhraseWriter:
    """Callable from a question to a noun phrase, for ``phrase_of`` of a concept segmenter."""

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int = 16) -> None:
        """Takes a model.

        Args:
            model: A causal language model of transformers, where it shall run.
            tokenizer: Its tokenizer; its chat template is used if it has one.
            max_new_tokens: Where a phrase is cut off.
        """
        self.model, self.tokenizer, self.max_new_tokens = model.eval(), tokenizer, max_new_tokens
        self._known: dict[str, str] = {}

    @classmethod
    def from_pretrained(cls, source: str | Path, device: torch.device | str = "cpu") -> PhraseWriter:
        """Opens model and tokenizer from a folder or a hub id.

        Args:
            source: As for :func:`segearth.utils.hub.find_source`.
            device: Where to run.

        Raises:
            CheckpointError: Nothing is there, or no language model.
        """
        model = open_pretrained(source, lambda _: "AutoModelForCausalLM", "language model").to(device)
        from transformers import AutoTokenizer

        with explained(source, "tokenizer"), quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(find_source(source, "tokenizer")))
        return cls(model, tokenizer)

    def __call__(self, question: str) -> str:
        """Returns the first line that the model writes, without its full stop; the question itself if that is empty."""
        if question not in self._known:
            if len(self._known) >= ANSWERS_KEPT:
                self._known.clear()
            self._known[question] = self._write(question) or question
        return self._known[question]

    @torch.inference_mode()
    def _write(self, question: str) -> str:
        text = INSTRUCTION.format(question=question)
        has_turns = bool(self.tokenizer.chat_template)  # which begin with the tokens that begin a text
        if has_turns:
            turns = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        tokens = self.tokenizer(text, add_special_tokens=not has_turns, return_tensors="pt").to(self.model.device)
        written = self.model.generate(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], max_new_tokens=self.max_new_tokens,
            do_sample=False, temperature=None, top_p=None, top_k=None, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        new = self.tokenizer.decode(written[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
        return next((line.strip(" .\"'*") for line in new.splitlines() if line.strip(" .\"'*")), "")
