"""Text that comes from files or users, and from errors of other libraries."""

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


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message for a message of our own; its class's name where it says nothing.

    Timeouts of HTTP libraries often have no message at all, and others have whole pages.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
