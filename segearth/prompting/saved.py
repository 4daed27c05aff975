"""A folder that names the parts of a prompted or concept segmenter: saved, and opened again.

The folder holds ``prompted.json``, which can be written by hand. A part is a folder inside it, a folder elsewhere, or a
hub id; it is in the form that transformers saves it in. The zoo's cards name parts in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from segearth.config import PROMPTED_CARD, from_dict, to_dict
from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.prompting.concepts import ConceptSegmenter
from segearth.prompting.phrases import PhraseWriter
from segearth.prompting.promptable import BoxFill, PromptableSegmenter
from segearth.prompting.prompted import PromptedSegmenter
from segearth.prompting.prompter import DEFAULT_TEMPLATE, Prompter
from segearth.prompting.sam import PromptableSam
from segearth.utils.files import atomic_folder, write_text

CARD_FILE = PROMPTED_CARD
BOXES = "boxes"  # as a promptable segmenter: BoxFill, which has no weights
PRECISIONS = ("fp32", "bf16")


@dataclass
class PromptedCard:
    """What makes up a :class:`~segearth.prompting.prompted.PromptedSegmenter`.

    Attributes:
        vision_language_model: Folder or hub id.
        promptable_segmenter: Folder or hub id, or ``"boxes"``.
        template: See :func:`segearth.prompting.templates.answer_template`.
        by_task: Templates of further tasks, such as ``{"caption": "geovlm_caption@1"}``.
        precision: ``"fp32"`` or ``"bf16"``, of the language model; the segmenter is small and stays in fp32.
        max_new_tokens: Where an answer is cut off.
        side: Of the square that images are resized to; ``None``: the template's.
        trained_on: Data-set splits that the weights have seen.
    """

    vision_language_model: str = ""
    promptable_segmenter: str = ""
    template: str = DEFAULT_TEMPLATE
    by_task: dict[str, str] = field(default_factory=dict)
    precision: str = "fp32"
    max_new_tokens: int = 1024
    side: int | None = None
    trained_on: list[str] | None = None


@dataclass
class ConceptCard:
    """What makes up a :class:`~segearth.prompting.concepts.ConceptSegmenter`.

    Attributes:
        model: Folder or hub id of a SAM 3.
        phrases_by: Folder or hub id of a language model that makes a noun phrase of each question; ``None``: it is
            asked as typed.
        threshold: From which score on an instance counts.
        precision: ``"fp32"`` or ``"bf16"``.
        trained_on: Data-set splits that the weights have seen.
    """

    model: str = ""
    phrases_by: str | None = None
    threshold: float = 0.5
    precision: str = "fp32"
    trained_on: list[str] | None = None


Card: TypeAlias = PromptedCard | ConceptCard
CARD_OF_FAMILY: Mapping[str, type[Card]] = {"prompted": PromptedCard, "concept": ConceptCard}


def read_card(folder: Path) -> Card:
    """Reads and checks ``prompted.json``.

    Raises:
        CheckpointError: It is missing, is no JSON, or names no part that it needs.
        UnknownNameError: No such family or precision.
        ConfigError: An unknown key, or a value of the wrong type.
    """
    path = folder / CARD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); write it anew, docs/decoupled.md says how") from error
    if not isinstance(values, dict) or not isinstance(values.get("family"), str):
        raise CheckpointError(f'{path} names no family; it begins {{"family": "prompted", …}} or "concept"')
    return card_of(values.pop("family"), values, str(path))


def card_of(family: str, values: Mapping[str, Any], origin: str) -> Card:
    """Makes and checks a card.

    Args:
        family: ``"prompted"`` or ``"concept"``.
        values: Fields of :class:`PromptedCard` or :class:`ConceptCard`.
        origin: Where they stand, for the messages.

    Raises:
        CheckpointError: A part is missing.
        UnknownNameError: No such family or precision.
        ConfigError: An unknown key, or a value of the wrong type.
    """
    if family not in CARD_OF_FAMILY:
        raise UnknownNameError("family", family, CARD_OF_FAMILY)
    card = from_dict(CARD_OF_FAMILY[family], values, origin=origin)
    needed = ("vision_language_model", "promptable_segmenter") if family == "prompted" else ("model",)
    if missing := [key for key in needed if not getattr(card, key)]:
        raise CheckpointError(f"{origin} does not say {' and '.join(missing)}; give a folder or a hub id")
    if card.precision not in PRECISIONS:
        raise UnknownNameError("precision of a prompted segmenter", card.precision, PRECISIONS)
    return card


def open_card(
    card: Card, folder: Path | None = None, device: Any = "cpu", precision: str | None = None
) -> PromptedSegmenter | ConceptSegmenter:
    """Opens the parts that a card names.

    Args:
        card: As :func:`read_card` or :func:`card_of` returns it.
        folder: Where the card lies; a part may be a folder inside of it. ``None`` for a card of the zoo.
        device: Where to run.
        precision: In place of the card's.

    Raises:
        CheckpointError: A part cannot be opened.
        ConfigError: There is no such precision for these families.
    """
    import torch

    wanted = precision or card.precision
    if wanted not in PRECISIONS:
        raise ConfigError(f"prompted and concept segmenters are opened in {' or '.join(PRECISIONS)}, not in {wanted}")
    dtype = torch.bfloat16 if wanted == "bf16" else torch.float32
    if isinstance(card, ConceptCard):
        phrases = PhraseWriter.from_pretrained(_part(folder, card.phrases_by), device) if card.phrases_by else None
        return ConceptSegmenter.from_pretrained(_part(folder, card.model), device, phrases, card.threshold, dtype)
    segmenter: PromptableSegmenter
    if card.promptable_segmenter == BOXES:
        segmenter = BoxFill()
    else:
        segmenter = PromptableSam.from_pretrained(_part(folder, card.promptable_segmenter), device)
    prompter = Prompter.from_pretrained(
        _part(folder, card.vision_language_model), device, dtype, template=card.template,
        by_task=card.by_task, max_new_tokens=card.max_new_tokens, side=card.side,
    )  # fmt: skip
    return PromptedSegmenter(prompter, segmenter)


def save_prompted(prompter: Prompter, segmenter: PromptableSegmenter, folder: str | Path, **facts: Any) -> None:
    """Saves a prompted segmenter with all its weights, to be opened by :func:`segearth.load`.

    Args:
        prompter: Its model and processor are saved to ``vlm``.
        segmenter: A :class:`~segearth.prompting.sam.PromptableSam`, saved to ``sam``, or a
            :class:`~segearth.prompting.promptable.BoxFill`.
        folder: Does not exist yet, or is empty.
        facts: Further fields of :class:`PromptedCard`, such as ``trained_on`` and ``precision``.

    Raises:
        CheckpointError: There is something in the folder.
        ConfigError: The segmenter is of another kind.
    """
    if not isinstance(segmenter, PromptableSam | BoxFill):
        raise ConfigError(f"a {type(segmenter).__name__} cannot be saved; give a PromptableSam or a BoxFill")
    card = PromptedCard(
        vision_language_model="vlm",
        promptable_segmenter="sam" if isinstance(segmenter, PromptableSam) else BOXES,
        template=prompter.template.id,
        by_task={task: own.id for task, own in prompter.by_task.items()},
        max_new_tokens=prompter.max_new_tokens,
        side=prompter.side,
        **facts,
    )
    with atomic_folder(folder) as temporary:
        for part in (prompter.model, prompter.processor):
            part.save_pretrained(temporary / "vlm")
        if isinstance(segmenter, PromptableSam):
            segmenter.model.save_pretrained(temporary / "sam")
        write_card(temporary, card)


def write_card(folder: Path, card: Card) -> None:
    """Writes ``prompted.json`` into a folder that exists."""
    family = next(name for name, kind in CARD_OF_FAMILY.items() if isinstance(card, kind))
    write_text(folder / CARD_FILE, json.dumps({"family": family, **to_dict(card)}, indent=2) + "\n")


def _part(folder: Path | None, name: str) -> str | Path:
    """What a card's name of a part means: a folder beside the card goes first."""
    return folder / name if folder is not None and (folder / name).is_dir() else name
