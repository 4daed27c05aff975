"""Reads lists and objects out of text that a language model meant as JSON, whatever it wrote.

:func:`read_strictly` takes JSON as the standard has it. :func:`read_values` takes anything: it knows brackets, words,
numbers and quoted texts, and puts together what it finds. Commas only separate, so missing and superfluous ones do no
harm; a bracket that is never closed ends with the text.

Both need time in proportion to the text's length, for any text: nothing is looked at more than a few times. Neither
calls itself, so that no nesting is too deep for Python.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

MOST_VALUES = 100_000  # a text of a megabyte can hold a million; what follows so many is no answer to a question
DEEPEST = 32  # brackets inside of brackets; the templates' answers have four
LONGEST_NUMBER = 330  # digits: more are beyond the largest float, and reading them all takes quadratic time

OPENING = re.compile(r"[\[{]")
TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<open>[\[{(])|(?P<close>[\]})])|(?P<comma>,)|(?P<colon>:)|(?P<quote>[\"'])"
    r"|(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,9})?(?=[\s,\]}):]|\Z))|(?P<word>[^\s,:\[\]{}()\"']+)"
)
# A text ends on its own line. Inside single quotes an apostrophe is no end unless something follows that only follows
# an end: "'the ship's bow'," is one text.
QUOTED = {
    '"': re.compile(r'"((?:[^"\\\n]|\\.)*)"'),
    "'": re.compile(r"'((?:[^'\\\n]|\\.|'(?!\s{0,8}(?:[,:\]})]|\Z)))*)'"),
}
WORDS = {
    "true": True, "True": True, "false": False, "False": False, "null": None, "None": None,
    "NaN": math.nan, "nan": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "inf": math.inf, "-inf": -math.inf,
}  # fmt: skip


def read_strictly(text: str) -> Any:
    """Returns what a JSON text says; all numbers as floats.

    Raises:
        ValueError: The text is no JSON, is nested too deeply, or has a NaN or an infinite number in it, which the
            standard does not know.
    """
    try:
        return json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@dataclass(slots=True)
class Found:
    """What :func:`read_values` found.

    Attributes:
        values: The outermost lists and objects, in the text's order. In them are lists, objects with texts as keys,
            texts, floats, booleans and ``None``.
        ends: Whether the last of them is closed; ``True`` if there is none.
        problems: What was left out.
    """

    values: list[Any] = field(default_factory=list)
    ends: bool = True
    problems: list[str] = field(default_factory=list)


def read_values(text: str) -> Found:
    """Returns every list and object in a text, however it is written. Never fails.

    Args:
        text: Any text; what stands outside of brackets is passed over.
    """
    reader, position = _Reader(text), 0
    while reader.room and (opening := OPENING.search(text, position)):
        position = reader.read(opening.start())
    return reader.found


class _Reader:
    """Puts values together as their tokens come. The stack holds the brackets that are open, the outermost first."""

    def __init__(self, text: str) -> None:
        self.text, self.found, self.room = text, Found(), MOST_VALUES
        self.stack: list[Any] = []
        self.keys: list[str | None] = []  # for each value in the stack; of an object the key whose value is to come
        self.open_kinds: dict[type, int] = {list: 0, dict: 0}  # how many of the stack are lists and objects
        self.too_deep = 0  # open brackets below the deepest level; what is in them is passed over
        self.no_end_before = {'"': 0, "'": 0}

    def read(self, position: int) -> int:
        """Reads one outermost value, which begins at ``position``, and returns where it ends."""
        while self.room > 0 and (token := TOKEN.match(self.text, position)):
            kind, written, position = token.lastgroup, token[0], token.end()
            if kind == "open":
                self._open(written)
            elif kind == "close":
                self._close(written)
                if not self.stack:
                    return position
            elif kind == "comma" and self.keys and not self.too_deep:
                self.keys[-1] = None  # a key without a value must not take the next key for its value
            elif kind in ("number", "word") and position == len(self.text):
                self.found.problems.append(f"{written[:20]!r} may be cut off at the end: left out")
            elif kind == "number":
                self._put(_number(written))
            elif kind == "word":
                self._put(WORDS.get(written, written))
            elif kind == "quote" and (whole := self._quoted(written, token.start())):
                self._put(_unescaped(whole[1]) if written == '"' else whole[1].replace("\\'", "'"))
                position = whole.end()
        if self.room <= 0:
            self.found.problems.append(f"more than {MOST_VALUES} values: the rest is left out")
        self.found.ends = False
        return len(self.text)

    def _open(self, bracket: str) -> None:
        if len(self.stack) >= DEEPEST:
            if not self.too_deep:
                self.found.problems.append(f"more than {DEEPEST} brackets inside of each other: left out")
            self.too_deep += 1
            return
        value: Any = {} if bracket == "{" else []
        self._put(value)
        self.stack.append(value)
        self.keys.append(None)
        self.open_kinds[type(value)] += 1

    def _close(self, bracket: str) -> None:
        if self.too_deep:
            self.too_deep -= 1
            return
        kind = dict if bracket == "}" else list
        if not self.open_kinds[kind]:
            return  # it closes nothing
        closed: type | None = None
        while closed is not kind:  # what is in it and was never closed ends here too
            closed = type(self.stack.pop())
            self.keys.pop()
            self.open_kinds[closed] -= 1

    def _put(self, value: Any) -> None:
        if self.too_deep:
            return
        self.room -= 1
        if not self.stack:
            self.found.values.append(value)
        elif isinstance(self.stack[-1], list):
            self.stack[-1].append(value)
        elif self.keys[-1] is None:
            # A list in the place of a key cannot be one; under this key it is passed over and not taken for a value.
            self.keys[-1] = value if isinstance(value, str) else ""
        else:
            self.stack[-1][self.keys[-1]] = value
            self.keys[-1] = None

    def _quoted(self, quote: str, start: int) -> re.Match[str] | None:
        """Finds the text that begins with a quote; ``None`` if no quote ends it, and then the quote means nothing."""
        if start < self.no_end_before[quote]:
            return None  # seen from an earlier quote. Looking again from each would take quadratic time
        whole = QUOTED[quote].match(self.text, start)
        if whole is None:
            line_end = self.text.find("\n", start)
            self.no_end_before[quote] = line_end if line_end >= 0 else len(self.text)
        return whole


def _number(written: str) -> float:
    return float(written[:LONGEST_NUMBER].rstrip("eE+-"))  # a number that is cut must not end within its exponent


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _unescaped(written: str) -> str:
    if "\\" not in written:
        return written
    try:
        return str(json.loads(f'"{written}"', strict=False))
    except ValueError:
        return written
