"""The table of words and needs: the names of classes, what they can be mistaken for, and needs that they satisfy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from segearth.data.questions.regions import REGIONS
from segearth.errors import ConfigError, nearest_names

SIZES = {"largest": 1, "second largest": 2, "smallest": -1}  # from a name in the table to the rank of a claim
DEFAULT_TABLE = Path(__file__).with_name("needs.yaml")


@dataclass(frozen=True)
class ClassWords:
    """How one class is named; the fields are explained at the top of ``needs.yaml``."""

    singular: str
    plural: str
    mass: bool = False
    synonyms: tuple[tuple[str, str], ...] = ()
    confusable: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    held_out: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Every ``(singular, plural)`` pair that may be used in training."""
        return ((self.singular, self.plural), *self.synonyms)


@dataclass(frozen=True)
class Need:
    """A need, such as a place to park, with the classes that satisfy it.

    Attributes:
        classes: All classes that satisfy the need.
        questions: Sentences that ask for it without naming the classes.
        conflicts: Classes that may satisfy the need too or make it doubtful; it is not asked if one is in the image.
        held_out: Further sentences, never used in training.
    """

    classes: tuple[str, ...]
    questions: tuple[str, ...]
    conflicts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribute:
    """How an attribute, such as the material of a roof, is asked for.

    Attributes:
        values: For each value its phrases, with ``{noun}`` in the place of the class.
        unsure: Values that say nothing clear, such as "other"; an object with one of them has no known value.
        held_out: For each value further phrases, never used in training.
        never_with: For each value the places (:data:`~segearth.data.questions.regions.REGIONS`) and :data:`SIZES` that
            are never combined with it in training.
    """

    values: Mapping[str, tuple[str, ...]]
    unsure: tuple[str, ...] = ()
    held_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    never_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Names of classes, attributes and needs, as read by :func:`load_table`."""

    classes: Mapping[str, ClassWords] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()

    def words(self, name: str) -> ClassWords:
        """Returns the words for a class; a class that is not in the table is called as in the annotations."""
        known = self.classes.get(name)
        return known if known is not None else ClassWords(name, _plural(name))


def load_table(extra: str | Path | Iterable[str | Path] = ()) -> Table:
    """Reads the built-in table and merges files of the user into it.

    Args:
        extra: A YAML file of the same form, or several. Its classes and attributes replace those of the same name; its
            needs are added to the others.

    Raises:
        ConfigError: A file is missing, is not YAML, or has a key that the form does not have.
    """
    classes: dict[str, ClassWords] = {}
    attributes: dict[str, Attribute] = {}
    needs: list[Need] = []
    files = [extra] if isinstance(extra, str | Path) else extra
    for path, tree in ((DEFAULT_TABLE, _built_in()), *((Path(file), _read(Path(file))) for file in files)):
        _check_keys(tree, ("classes", "attributes", "needs"), str(path))
        for name, entry in (tree.get("classes") or {}).items():
            classes[str(name)] = _class_words(entry, f"{path}: class {name!r}")
        for key, entry in (tree.get("attributes") or {}).items():
            attributes[str(key)] = _attribute(entry, f"{path}: attribute {key!r}")
        needs += [_need(entry, f"{path}: need {number}") for number, entry in enumerate(tree.get("needs") or (), 1)]
    return Table(classes, attributes, tuple(needs))


def _class_words(entry: Any, where: str) -> ClassWords:
    _check_keys(entry, tuple(ClassWords.__dataclass_fields__), where)
    if "singular" not in entry:
        raise ConfigError(f"{where} has no 'singular'")
    confusable, ambiguous, covers = (tuple(entry.get(key, ())) for key in ("confusable", "ambiguous", "covers"))
    synonyms, held_out = (tuple((str(a), str(b)) for a, b in entry.get(key, ())) for key in ("synonyms", "held_out"))
    return ClassWords(
        entry["singular"],
        entry.get("plural") or _plural(entry["singular"]),
        bool(entry.get("mass", False)),
        synonyms,
        confusable,
        ambiguous,
        covers,
        held_out,
    )


def _attribute(entry: Any, where: str) -> Attribute:
    _check_keys(entry, tuple(Attribute.__dataclass_fields__), where)
    values, held_out, never_with = (
        {str(value): tuple(listed) for value, listed in (entry.get(key) or {}).items()}
        for key in ("values", "held_out", "never_with")
    )
    if not values:
        raise ConfigError(f"{where} has no 'values'")
    for key, by_value in (("held_out", held_out), ("never_with", never_with)):
        _check_keys(by_value, tuple(values), f"{where}: {key}")
    for value, places in never_with.items():
        _check_keys(dict.fromkeys(places), (*SIZES, *REGIONS), f"{where}: never_with {value!r}")
    return Attribute(values, tuple(map(str, entry.get("unsure", ()))), held_out, never_with)


def _need(entry: Any, where: str) -> Need:
    _check_keys(entry, tuple(Need.__dataclass_fields__), where)
    if not entry.get("classes") or not entry.get("questions"):
        raise ConfigError(f"{where} needs 'classes' and 'questions', at least one of each")
    conflicts, held_out = (tuple(entry.get(key, ())) for key in ("conflicts", "held_out"))
    return Need(tuple(entry["classes"]), tuple(entry["questions"]), conflicts, held_out)


def _check_keys(entry: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must hold keys and values")
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest_names(str(key), known)}")


@cache
def _built_in() -> Mapping[str, Any]:
    """Reads the built-in file once, since every data set with annotations needs it."""
    return _read(DEFAULT_TABLE)


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    if not path.is_file():
        raise ConfigError(f"no table of needs {path}; give a YAML file like {DEFAULT_TABLE}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    return tree or {}


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
