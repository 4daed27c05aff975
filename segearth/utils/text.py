"""Text that comes from outside."""

from __future__ import annotations


def is_whole_text(text: str) -> bool:
    """Whether every character is whole; half of one, as bytes that are not UTF-8 leave it, no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
