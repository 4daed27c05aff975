"""Checks of text that comes from files or users."""

from __future__ import annotations


def is_whole_text(text: str) -> bool:
    """Whether a text can be encoded as UTF-8.

    Python marks bytes that it could not decode with halves of a character (lone surrogates). Tokenizers fail on them.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
