"""Translates state dicts from the names of another project ("theirs") to this library's ("ours"), and back.

A translation is described by a list of :class:`Rule`. The names in a rule are templates: a field such as ``{i}`` stands
for a number and ``{p}`` for ``weight`` or ``bias``. A tensor that no rule names is an error, so that no weight is lost
unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from segearth.errors import CheckpointError

SHOWN = 8  # how many names an error lists


@dataclass(frozen=True)
class Rule:
    """The rule for one of their tensors, which holds one or several of ours.

    Attributes:
        theirs: Template of their tensor's name.
        ours: Templates of our tensors' names, with the same fields.
        split: Function that makes our tensors from theirs; by default theirs is taken as it is.
        join: Function that makes their tensor from ours; by default ours is taken as it is.
    """

    theirs: str
    ours: tuple[str, ...]
    split: Callable[[Tensor], Sequence[Tensor]] = lambda tensor: (tensor,)
    join: Callable[[Sequence[Tensor]], Tensor] = lambda tensors: tensors[0]

    @cached_property
    def their_pattern(self) -> re.Pattern[str]:
        """Matches their names."""
        return _pattern(self.theirs)

    @cached_property
    def our_pattern(self) -> re.Pattern[str]:
        """Matches the first of our names."""
        return _pattern(self.ours[0])


@dataclass(frozen=True)
class Unused:
    """Tensors of theirs that have no counterpart here, with the reason.

    Attributes:
        theirs: Template of the name; ``{*}`` stands for anything.
        reason: Why leaving them out changes nothing.
    """

    theirs: str
    reason: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches their names."""
        return _pattern(self.theirs)


@dataclass
class Translation:
    """A translated state dict and what happened to each of their tensors.

    Attributes:
        state: Tensors under our names.
        matched: How many of their tensors were translated.
        unused: From the reason to the names of their tensors that were left out.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    matched: int = 0
    unused: dict[str, list[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Returns a report of the translation, as lines of text."""
        said = [f"{self.matched} tensors matched, {len(self.state)} under this library's names"]
        for reason, names in self.unused.items():
            said.append(f"{len(names)} left out: {reason} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})")
        return said


def simple(theirs: str, ours: str) -> Rule:
    """Returns the rule for a tensor that only changes its name."""
    return Rule(theirs, (ours,))


def to_ours(
    state: Mapping[str, Tensor], rules: Sequence[Rule], unused: Sequence[Unused] = (), origin: str = "checkpoint"
) -> Translation:
    """Translates their state dict to our names.

    Args:
        state: Their tensors.
        rules: The rules; the first one that matches a name is used.
        unused: Tensors that are left out.
        origin: Named in errors.

    Raises:
        CheckpointError: A name matches neither ``rules`` nor ``unused``, or a tensor cannot be split.
    """
    result, strangers = Translation(), []
    for name, tensor in state.items():
        found = next(((rule, m) for rule in rules if (m := rule.their_pattern.fullmatch(name))), None)
        if found is not None:
            rule, match = found
            try:
                parts = rule.split(tensor)
            except RuntimeError as error:
                shape, why = tuple(tensor.shape), str(error).splitlines()[0]
                raise CheckpointError(f"{origin}: {name} of shape {shape} cannot be split: {why}") from error
            names = _fill(rule.ours, match)
            if taken := [ours for ours in names if ours in result.state]:
                raise CheckpointError(f"{origin}: {name} and another tensor both give {shorten(taken)}")
            result.state.update(zip(names, parts, strict=True))
            result.matched += 1
        elif reason := next((u.reason for u in unused if u.pattern.fullmatch(name)), None):
            result.unused.setdefault(reason, []).append(name)
        else:
            strangers.append(name)
    if strangers:
        raise CheckpointError(
            f"{origin}: {len(strangers)} tensors are unknown here: {shorten(strangers)}; "
            "is it a checkpoint of another model, or of a newer version?"
        )
    return result


def to_theirs(state: Mapping[str, Tensor], rules: Sequence[Rule], ours_only: Sequence[str] = ()) -> dict[str, Tensor]:
    """Translates our state dict back to their names.

    Args:
        state: Our tensors.
        rules: The rules.
        ours_only: Templates of our names that have no counterpart; these tensors are left out.

    Raises:
        CheckpointError: No rule matches one of our names, or a part of a tensor that is joined from several is missing.
    """
    left, result = dict(state), {}
    patterns = [_pattern(name) for name in ours_only]
    for name in state:
        if name not in left:
            continue  # taken as part of an earlier tensor
        found = next(((rule, m) for rule in rules if (m := rule.our_pattern.fullmatch(name))), None)
        if found is not None:
            rule, match = found
            parts = _fill(rule.ours, match)
            if missing := [part for part in parts if part not in left]:
                raise CheckpointError(f"{name} cannot be joined: {shorten(missing)} missing")
            (their_name,) = _fill((rule.theirs,), match)
            result[their_name] = rule.join([left.pop(part) for part in parts])
        elif any(pattern.fullmatch(name) for pattern in patterns):
            del left[name]
    left = {name: t for name, t in left.items() if not any(pattern.fullmatch(name) for pattern in patterns)}
    if left:
        raise CheckpointError(f"{len(left)} tensors have no name there: {shorten(left)}")
    return result


def check_shapes(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Sequence[int]],
    origin: str,
    optional: Iterable[str] = (),
) -> None:
    """Compares the names and shapes of tensors with those that a model needs.

    Args:
        state: Tensors by name.
        expected: Shapes by name.
        origin: Named in errors.
        optional: Names that may be missing.

    Raises:
        CheckpointError: Tensors are missing, unknown, of another shape, or not of floating point; it lists their names.
    """
    missing = sorted(expected.keys() - state.keys() - set(optional))
    extra = sorted(state.keys() - expected.keys())
    shared = [(name, tensor, tuple(expected[name])) for name, tensor in state.items() if name in expected]
    wrong = [f"{name} is {tuple(t.shape)}, not {shape}" for name, t, shape in shared if tuple(t.shape) != shape]
    whole = [f"{name} is {tensor.dtype}" for name, tensor, _ in shared if not tensor.is_floating_point()]
    problems = {"missing": missing, "of another shape": wrong, "too many": extra, "not of floating point": whole}
    for what, names in problems.items():
        if names:
            raise CheckpointError(f"{origin}: {len(names)} tensors {what}: {shorten(names)}")


def shorten(names: Iterable[str]) -> str:
    """Joins names for an error message; of many names only the first few are shown."""
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


def _pattern(template: str) -> re.Pattern[str]:
    kinds = {"{*}": ".+", "{p}": "(?P<p>weight|bias)"}
    pieces = re.split(r"(\{[^}]*\})", template)
    regex = "".join(
        re.escape(piece) if not piece.startswith("{") else kinds.get(piece, rf"(?P<{piece[1:-1]}>\d+)")
        for piece in pieces
    )
    return re.compile(regex)


def _fill(templates: Sequence[str], match: re.Match[str]) -> list[str]:
    return [template.format(**match.groupdict()) for template in templates]
