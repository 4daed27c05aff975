from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import CheckpointError
from segearth.text.known_words import FILE, NEGATIONS, KnownWords, load_known_words, read_question, words_of

KNOWN = KnownWords(["the", "road", "in", "left", "half", "sea"])


@pytest.mark.parametrize(
    ("text", "kept", "unknown"),
    [
        ("The road in the left half?", "The road in the left half?", ()),
        ("Which pixels show the road?", "the road?", ("which", "pixels", "show")),
        ("roads except the left half", "except the left half", ("roads", "except")),  # never the opposite
        ("the igloos in it", "the in", ("igloos", "it")),
        ("the road's left half, 2 of it", "the road's left half, 2", ("of", "it")),
        ("the sea-going road", "the road", ("going",)),  # half a word would say something else
        ("automobiles", "automobiles", ("automobiles",)),  # something must be asked
        ("Straße straße road", "road", ("straße",)),
    ],
)
def test_what_is_not_known_is_left_out_and_told(text: str, kept: str, unknown: tuple[str, ...]) -> None:
    assert KNOWN.read(text) == (kept, unknown)


@given(st.lists(st.sampled_from([*sorted(KNOWN), "igloo", "not", "x1", "?"]), max_size=8).map(" ".join))
def test_reading_again_changes_nothing_and_only_what_is_unknown_is_left_out(text: str) -> None:
    kept, unknown = KNOWN.read(text)
    assert KNOWN.read(kept).text == kept
    assert set(words_of(text)) - set(words_of(kept)) <= set(unknown) - NEGATIONS
    assert set(unknown) == set(words_of(text)) - KNOWN


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


def test_without_a_list_every_word_is_taken() -> None:
    assert read_question("the igloos and the road", None) == ("the igloos and the road", ())
    assert read_question("the igloos and the road", KNOWN) == ("the the road", ("igloos", "and"))
