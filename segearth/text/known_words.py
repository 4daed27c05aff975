"""Which words a language model that started at random has met, so that it passes over others and says so.

Pretrained language models know nearly every word. One that learned its words from a data set's questions has random
vectors for all others, and they do harm: asked "Which pixels belong to the road?", a model that has never met "pixels"
and "belong" answers worse than if they were not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from segearth.errors import CheckpointError
from segearth.utils.files import write_text

FILE = "known_words.txt"
WORD = re.compile(r"[^\W\d_]{2,}")  # letters of any script; the s of "picture's" says nothing
# Without one of these a question would ask for the opposite, so they stay even where they are unknown.
NEGATIONS = frozenset(("no", "not", "non", "without", "except", "excluding", "but", "other", "than", "nor", "never"))


class Reading(NamedTuple):
    """A question as a model with :class:`KnownWords` reads it.

    Attributes:
        text: Without the words that it does not know, where it knows any.
        unknown: Those words in lower case, each once, in their order.
    """

    text: str
    unknown: tuple[str, ...]


def warning_of(unknown: Iterable[str]) -> str:
    """Returns what to tell whoever asked in words that the model does not know."""
    return f"the model never met {', '.join(map(repr, unknown))} in training and goes by the other words"


class KnownWords(frozenset[str]):
    """The words that a model has met, in lower case."""

    def read(self, text: str) -> Reading:
        """Leaves out what is not known.

        Args:
            text: A question. What lies between two spaces is left out if one of its words is unknown, but for
                negations. Numbers stay. If no word would be left, all stay: the model must be asked something. Asked of
            "the" alone, where a thing's name is unknown, it does better than asked with the unknown name.
        """
        found = words_of(text)
        unknown = tuple(dict.fromkeys(word for word in found if word not in self))
        kept = [part for part in text.split() if (self | NEGATIONS).issuperset(words_of(part))]
        if not unknown or not words_of(" ".join(kept)):
            return Reading(text, unknown)
        return Reading(" ".join(kept), unknown)

    def save(self, folder: Path) -> None:
        """Writes the words into a model's folder, one a line."""
        write_text(folder / FILE, "".join(f"{word}\n" for word in sorted(self)))


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, in order: runs of two letters or more."""
    return [word.lower() for word in WORD.findall(text)]


def read_question(text: str, known: KnownWords | None) -> Reading:
    """Reads a question as a model does; without a list of known words every word is taken."""
    return Reading(text, ()) if known is None else known.read(text)


def load_known_words(folder: Path) -> KnownWords | None:
    """Reads the words that :meth:`KnownWords.save` wrote; ``None`` where there are none, and every word is taken.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); fetch the folder again") from error
    if not words:
        raise CheckpointError(f"{path} holds no word; fetch the folder again, or delete the file to take every word")
    return KnownWords(words)
