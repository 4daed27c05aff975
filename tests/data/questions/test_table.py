from __future__ import annotations

from pathlib import Path

import pytest

from segearth.data.questions.table import Attribute, ClassWords, Need, load_table
from segearth.errors import ConfigError

TABLE = load_table()


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_needs_name_known_classes() -> None:
    assert {c for n in TABLE.needs for c in (*n.classes, *n.conflicts)} <= TABLE.classes.keys()


def test_every_field_of_a_users_table_is_read(tmp_path: Path) -> None:
    table = load_table([write(tmp_path, """
classes:
  silo: {singular: silo, plural: siloes, mass: true, synonyms: [[tower, towers]], confusable: [storage tank],
         ambiguous: [chimney], covers: [bin], held_out: [[grain tower, grain towers]]}
  road: {singular: lane}
attributes:
  "wall:colour": {values: {red: ["red {noun}", "{noun} in red"], 7: ["seventh {noun}"]}, unsure: [mixed, 3],
    held_out: {7: ["{noun} of the seventh"]}, never_with: {red: [smallest, left half]}}
needs:
  - {classes: [silo], questions: ['Where is grain kept?'], conflicts: [ship], held_out: ['And corn?']}
""")])  # fmt: skip
    assert table.words("silo") == ClassWords(
        "silo", "siloes", True, (("tower", "towers"),), ("storage tank",), ("chimney",), ("bin",),
        (("grain tower", "grain towers"),),
    )  # fmt: skip
    assert table.words("silo").names == (("silo", "siloes"), ("tower", "towers"))
    assert table.words("road") == ClassWords("lane", "lanes")  # replaces the built-in class whole
    assert table.attributes["wall:colour"] == Attribute(
        {"red": ("red {noun}", "{noun} in red"), "7": ("seventh {noun}",)},
        ("mixed", "3"),
        {"7": ("{noun} of the seventh",)},
        {"red": ("smallest", "left half")},
    )
    assert table.attributes["roof:shape"] == TABLE.attributes["roof:shape"]
    assert table.needs == (*TABLE.needs, Need(("silo",), ("Where is grain kept?",), ("ship",), ("And corn?",)))
    assert table.words("building") == TABLE.words("building")


@pytest.mark.parametrize(
    ("noun", "plural"),
    [
        ("greenhouse", "greenhouses"), ("bus", "buses"), ("box", "boxes"), ("church", "churches"), ("bush", "bushes"),
        ("ferry", "ferries"), ("runway", "runways"), ("buoy", "buoys"), ("quay", "quays"),
    ],
)  # fmt: skip
def test_a_class_of_no_table_keeps_its_name_and_gets_a_plural(noun: str, plural: str) -> None:
    assert TABLE.words(noun) == ClassWords(noun, plural)


def test_an_empty_file_adds_nothing(tmp_path: Path) -> None:
    for text in ("", "classes:\nneeds:\nattributes:\n"):
        assert load_table([write(tmp_path, text)]) == TABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clases: {}", r"mine\.yaml: unknown key 'clases'; did you mean 'classes'"),
        ("classes: {silo: {plural: silos}}", r"mine\.yaml: class 'silo' has no 'singular'"),
        ("classes: {silo: {singular: silo, plurals: silos}}",
         "class 'silo': unknown key 'plurals'; did you mean 'plural'"),
        ("classes: {silo: tower}", "class 'silo' must hold keys and values"),
        ("needs: [{classes: [silo], questions: [a]}, {classes: [silo]}]",
         r"mine\.yaml: need 2 needs .* at least one of each"),
        ("needs: [{questions: ['Where?']}]", "need 1 needs 'classes' and 'questions'"),
        ("needs: [{classes: [a], questions: [b], conflict: [c]}]",
         "need 1: unknown key 'conflict'; did you mean 'conflicts'"),
        ("attributes: {a: {value: {}}}", "attribute 'a': unknown key 'value'; did you mean 'values'"),
        ("attributes: {a: {unsure: [b]}}", "attribute 'a' has no 'values'"),
        ("attributes: {a: {values: {red: [x]}, held_out: {rad: [y]}}}",
         "attribute 'a': held_out: unknown key 'rad'; did you mean 'red'"),
        ("attributes: {a: {values: {red: [x]}, never_with: {red: [left halve]}}}",
         "attribute 'a': never_with 'red': unknown key 'left halve'; did you mean 'left half'"),
        ("- a", r"mine\.yaml must hold keys and values"),
        ("needs: [", r"mine\.yaml: not readable as YAML"),
    ],
)  # fmt: skip
def test_bad_table_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_table([write(tmp_path, text)])


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no table of needs .*none\.yaml; give a YAML file like .*needs\.yaml"):
        load_table([tmp_path / "none.yaml"])
