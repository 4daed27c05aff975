from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import CheckpointError
from segearth.text.known_words import FILE, KnownWords, load_known_words, words_of

KNOWN = KnownWords(["the", "road", "in", "left", "half", "sea"])


@pytest.mark.parametrize(
    ("text", "kept", "unknown"),
    [
        ("The road in the left half?", "The road in the left half?", ()),
        ("Which pixels show the road?", "the road?", ("which", "pixels", "show")),
        ("the road's left half, 2 of it", "the road's left half, 2", ("of", "it")),
        ("the sea-going road", "the road", ("going",)),  # half a word would say something else
        ("automobiles", "automobiles", ("automobiles",)),  # something must be asked
        ("Straße straße the", "the", ("straße",)),
    ],
)
def test_what_is_not_known_is_left_out_and_told(text: str, kept: str, unknown: tuple[str, ...]) -> None:
    assert KNOWN.read(text) == (kept, unknown)


@given(st.text(max_size=60))
def test_reading_again_changes_nothing_and_no_unknown_word_is_left_beside_known_ones(text: str) -> None:
    kept, unknown = KNOWN.read(text)
    if set(words_of(text)) - set(unknown):
        assert KNOWN.issuperset(words_of(kept))
        assert KNOWN.read(kept) == (kept, ())
    else:
        assert kept == text


def test_words_are_runs_of_letters_in_lower_case() -> None:
    assert words_of("The picture's 3 flat-roofed houses") == ["the", "picture", "flat", "roofed", "houses"]


def test_they_are_kept_beside_a_model(tmp_path: Path) -> None:
    assert load_known_words(tmp_path) is None
    KNOWN.save(tmp_path)
    assert load_known_words(tmp_path) == KNOWN
    assert (tmp_path / FILE).read_text().split() == sorted(KNOWN)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_a_damaged_list_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="fetch the folder again"):
        load_known_words(tmp_path)
