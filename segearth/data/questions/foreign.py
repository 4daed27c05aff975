"""Made-up words around a question, so that a model learns to pass over words that it does not know.

A language model that was not pretrained knows only the words that training used. It has never had to tell what matters
in a sentence, and "Which pixels belong to the road?" gets another answer than "the road", although only words that it
does not know were added. With made-up words around some of the training questions it learns that they say nothing, and
that a thing whose *name* is unknown is not to be found.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segearth.structures import Question, Regions

CONSONANTS, VOWELS = tuple("bcdfghjklmnprstvwz"), tuple("aeiou")
UNKNOWN_SHARE = 0.25  # of the questions with made-up words: how many ask for a thing with a made-up name


def made_up_word(rng: np.random.Generator) -> str:
    """Returns a word such as ``"lovat"``, of two or three syllables; hardly ever a real one."""
    word = "".join(f"{_pick(CONSONANTS, rng)}{_pick(VOWELS, rng)}" for _ in range(2 + int(rng.integers(2))))
    return word + (_pick(CONSONANTS, rng) if rng.random() < 0.5 else "")


def among_foreign_words(text: str, rng: np.random.Generator) -> str:
    """Puts up to three made-up words before a question and up to two after it, one at least."""
    before = [made_up_word(rng) for _ in range(int(rng.integers(1, 4)))]
    after = [made_up_word(rng) for _ in range(int(rng.integers(3)))] if rng.random() < 0.5 else []
    core = text.rstrip(".?")
    core = core if core.isupper() else core[:1].lower() + core[1:]
    sentence = " ".join([*before, core, *after])
    return sentence[:1].upper() + sentence[1:] + _pick((".", "?", ""), rng)


def with_foreign_words(questions: list[Question], share: float, rng: np.random.Generator) -> list[Question]:
    """Words some of an image's questions among made-up words.

    Args:
        questions: With targets of regions.
        share: Of the questions that are changed, in [0, 1]. Of these a quarter, never one that has a twin, asks for a
            thing with a made-up name instead, which is not there. At 0 nothing is drawn from ``rng``.
        rng: Decides which, and the words.

    Returns:
        As many questions, in the same order.
    """
    if not share:
        return questions
    return [_changed(question, rng) if rng.random() < share else question for question in questions]


def _changed(question: Question, rng: np.random.Generator) -> Question:
    target = question.target
    if rng.random() < UNKNOWN_SHARE and not question.pairs and isinstance(target, Regions):
        name = made_up_word(rng)
        words = f"the {name}{_pick(('', 's'), rng)}"
        nothing = Regions(np.zeros_like(target.mask))
        text = among_foreign_words(words, rng) if rng.random() < 0.5 else words
        return replace(
            question, text=text, target=nothing, present=False, kind="absent", task="referring",
            answer=f"There is no {name} in this image.",
        )  # fmt: skip
    return replace(question, text=among_foreign_words(question.text, rng))


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
