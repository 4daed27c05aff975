"""The one way in: what a name, a folder, a training run or a hub id means, and opening it.

Python, the command line and configurations all come through :func:`find_folder`, so that a text means the same
everywhere.
"""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segearth.config import PROMPTED_CARD
from segearth.errors import CheckpointError, ConfigError, SegEarthError, UnknownNameError
from segearth.utils.files import file_state, sha256_of
from segearth.utils.hub import PREFIX, find_source
from segearth.zoo.cards import CARDS, PACKAGED, check_card, config_of, get_card, is_named

if TYPE_CHECKING:
    import torch

    from segearth.inference.predictor import Predictor
    from segearth.models.segearth import SegEarth
    from segearth.prompting.concepts import ConceptSegmenter
    from segearth.prompting.prompted import PromptedSegmenter
    from segearth.prompting.saved import Card

logger = logging.getLogger(__name__)
PACKAGED_WEIGHTS = Path(__file__).with_name("weights")
DEFAULT_RUN = Path("runs/aerial_mini")  # what `bash train.sh` leaves; a path, which no hub is ever asked for
DEFAULT_NAME = "segearth_tiny"
PARTS_WITH_WEIGHTS = ("vision_language_model", "promptable_segmenter", "model", "phrases_by")  # keys of such a card


def load(
    source: str | Path | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    *,
    revision: str | None = None,
    cache: str | Path | None = None,
) -> Predictor | PromptedSegmenter | ConceptSegmenter:
    """Opens a model, ready to be asked; each of them is a :class:`~segearth.segmenter.Segmenter`.

    Args:
        source: A name of :func:`list_models`, a saved folder, a training run's folder, or a hub id: of a model of this
            library, or of a published SegEarth-R1, which is converted the first time. A ``Path`` is a folder only. A
            folder or a model of the hub with ``prompted.json`` is a prompted or a concept segmenter, see
            :mod:`segearth.prompting.saved`. If left out: the run that ``bash train.sh`` leaves here, or else the
            weights that come with the package.
        device: Such as ``"cuda:1"``; if left out the best there is: CUDA, then Apple's GPU, then the CPU.
        precision: ``"fp32"``, ``"bf16"``, ``"int8"`` or ``"int4"``; see
            :func:`segearth.inference.precision.set_precision`. If left out ``"fp32"``, or what the card of a prompted
            or concept segmenter says, which is held in one of the first two.
        revision: Branch, tag or commit of a hub id.
        cache: Folder of converted models; see :func:`segearth.convert.cache.cache_folder`.

    Raises:
        UnknownNameError: No such model, or no such precision.
        CheckpointError: Nothing is there, or it is damaged or of an unknown form.
        ConfigError: There is no such device, or ``revision`` is given for what is not on a hub.
    """
    from segearth.inference.precision import PRECISIONS, set_precision
    from segearth.inference.predictor import Predictor
    from segearth.models.segearth import SegEarth
    from segearth.utils.processes import own_device

    # Told before gigabytes are fetched and read, as is a device that is not there.
    if precision is not None and precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    place = own_device(device)
    chosen = default_source() if source is None else source
    folder = None if is_named(chosen) else _located(chosen, revision, cache)
    if (card := _prompted_card(chosen, folder)) is not None:
        from segearth.prompting.saved import open_card

        if folder is None:
            _no_revision(chosen, revision)
        return open_card(card, folder, place, precision)
    if folder is None:
        model = open_model(chosen, revision=revision, cache=cache)
    else:
        model = SegEarth.from_pretrained(folder)
    return Predictor(set_precision(model.to(place), precision or "fp32"))


def open_model(
    source: str | Path | None = None, *, revision: str | None = None, cache: str | Path | None = None
) -> SegEarth:
    """Opens the bare model, on the CPU and in eval mode: for training, export and tests.

    Args:
        source: As for :func:`load`. A name without trained weights gives random ones, and a warning.
        revision: As for :func:`load`.
        cache: As for :func:`load`.

    Raises:
        CheckpointError: Nothing is there, or it is damaged or of an unknown form.
    """
    from segearth.models.build import build_model
    from segearth.models.segearth import SegEarth

    chosen = default_source() if source is None else source
    if is_named(chosen):
        card = check_card(str(chosen))
        if not card.weights and not card.convert_from:
            config = config_of(str(chosen))
            logger.warning("%s has no published weights: these are random; train it before trusting a mask", chosen)
            return build_model(config).eval()
    return SegEarth.from_pretrained(find_folder(chosen, revision=revision, cache=cache))


def find_folder(source: str | Path, *, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """Decides what a text means and returns the folder with that model's weights, fetched and converted if need be.

    In this order: a folder that exists (of a training run, the best model in it, or else the last), a name of the zoo,
    a hub id. What looks like a path is never asked of the hub: see :func:`segearth.utils.hub.find_source`.

    Args:
        source: As for :func:`load`.
        revision: As for :func:`load`.
        cache: As for :func:`load`.

    Raises:
        UnknownNameError: It is nearly the name of a model.
        CheckpointError: Nothing is there, or it is not what its card promises, or of an unknown form.
        ConfigError: ``revision`` is given for what is not on a hub, or the name is that of another family.
    """
    if is_named(source):
        from segearth.convert.cache import fetch

        card = check_card(str(source))
        if card.parts:
            config_of(str(source))  # says that there is none, and what to do
        if card.weights is None and card.convert_from:
            return fetch(card.convert_from, revision, cache)
        _no_revision(source, revision)
        return _promised_folder(str(source))
    folder = _located(source, revision, cache)
    if prompted_folder(folder) is not None:
        raise CheckpointError(f"{source} is a prompted segmenter, no SegEarth model; open it with segearth.load")
    return folder


def _located(source: str | Path, revision: str | None, cache: str | Path | None) -> Path:
    """Returns the folder of a model of any family that is no name of the zoo: see :func:`find_folder`."""
    from segearth.convert.cache import fetch
    from segearth.models.pretrained import local_folder

    if isinstance(source, Path) and not source.is_dir():
        raise CheckpointError(
            f"nothing is trained at {source} yet; run `segearth train` first (`bash train.sh` in a checkout), or say "
            "what to open (on the command line with --model)"
        )
    if (folder := prompted_folder(source)) is not None:
        _no_revision(source, revision)
        return folder
    if isinstance(source, str) and _is_misspelt(source):
        raise UnknownNameError("model", source, CARDS)
    place = find_source(source)
    if isinstance(place, str):
        return fetch(place, revision, cache)
    _no_revision(source, revision)
    return local_folder(place)


def prompted_folder(source: str | Path) -> Path | None:
    """Returns the local folder of a prompted or concept segmenter; ``None`` for anything else."""
    folder = Path(source).expanduser()
    return folder if (folder / PROMPTED_CARD).is_file() else None


def _prompted_card(source: str | Path, folder: Path | None) -> Card | None:
    """Returns the card of a prompted or concept segmenter, by its name or in its folder; ``None`` for anything else."""
    if folder is not None:
        if prompted_folder(folder) is None:
            return None
        from segearth.prompting.saved import read_card

        return read_card(folder)
    named = check_card(str(source))
    if not named.parts:
        return None
    from segearth.prompting.saved import card_of

    return card_of(named.family, {**named.parts, "trained_on": list(named.trained_on)}, f"the card of {source}")


def default_source() -> str | Path:
    """The run that ``bash train.sh`` leaves, or, where there is none, the model whose weights come with the package."""
    from segearth.models.pretrained import CONFIG_FILE, local_folder

    trained = DEFAULT_RUN.is_dir() and (local_folder(DEFAULT_RUN) / CONFIG_FILE).is_file()
    return DEFAULT_RUN if trained or get_card(DEFAULT_NAME).weights is None else DEFAULT_NAME


def name_of(source: str | Path | None) -> str:
    """Returns how a model is called where results are labelled; ``source`` is as for :func:`load`."""
    return str(default_source() if source is None else source)


def model_state(source: str | Path | None) -> dict[str, Any]:
    """Returns the state of a model's files, to notice that it was trained or calibrated again under its name.

    Args:
        source: As for :func:`load`.

    Returns:
        For each file what :func:`segearth.utils.files.file_state` says; empty where the weights are random or the model
        has several parts.
    """
    from segearth.models.pretrained import CONFIG_FILE, WEIGHTS_FILE

    try:
        folder = find_folder(default_source() if source is None else source)
    except SegEarthError:
        return {}
    return {name: file_state(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}


def training_of(source: str | Path) -> dict[str, Any]:
    """Returns what is known of a model's training: from its card, or beside its weights.

    Args:
        source: As for :func:`load`.

    Returns:
        As :func:`segearth.models.pretrained.training_facts`; a card tells ``"trained_on"`` alone. Nothing where there
        is no such model, or where neither tells.
    """
    from segearth.models.pretrained import training_facts

    hub_id = str(source).removeprefix(PREFIX)
    named = [card for name, card in CARDS.items() if is_named(source) and name == source]
    published = [card for card in CARDS.values() if card.convert_from == hub_id and not Path(hub_id).is_dir()]
    for card in [*named, *published]:
        return {"trained_on": list(card.trained_on)} if card.trained_on else {}
    if is_named(source):
        return {}
    try:
        folder = _located(source, None, None)
    except (CheckpointError, UnknownNameError):
        return {}
    if (prompted := _prompted_card(source, folder)) is not None:
        return {} if prompted.trained_on is None else {"trained_on": prompted.trained_on}
    return training_facts(folder)


def availability(name: str, cache: str | Path | None = None) -> str:
    """Says in a few words what it takes to use a model of the zoo: nothing, a download, or a training. Asks no hub.

    Args:
        name: A name of :func:`list_models`.
        cache: As for :func:`load`.

    Raises:
        UnknownNameError: No such model.
    """
    from huggingface_hub import try_to_load_from_cache

    from segearth.convert.cache import converted
    from segearth.models.pretrained import WEIGHTS_FILE

    card = get_card(name)
    if card.weights == PACKAGED:
        return "ready: packaged"
    if card.weights is None and card.convert_from is None and not card.parts:
        return "to be trained"
    width = 4  # bytes of a weight, in fp32
    if card.parts:
        # transformers writes large models in several files, with an index beside them.
        parts = [card.parts[key] for key in PARTS_WITH_WEIGHTS if key in card.parts]
        files = (WEIGHTS_FILE, f"{WEIGHTS_FILE}.index.json")
        here = all(any(isinstance(try_to_load_from_cache(part, file), str) for file in files) for part in parts)
        width = 2 if card.parts.get("precision") == "bf16" else 4
    elif card.weights is None:
        here = bool(converted(str(card.convert_from), cache))
    else:
        here = Path(card.weights).is_dir() or isinstance(try_to_load_from_cache(card.weights, WEIGHTS_FILE), str)
    size = card.parameters * width / 1000
    return "ready: in the cache" if here else f"fetched when first opened, {size:.1f} GB"


def _promised_folder(name: str) -> Path:
    """Returns the folder with the trained weights of a name, and checks that they are those that its card promises."""
    from segearth.models.pretrained import WEIGHTS_FILE, local_folder

    card = get_card(name)
    if card.weights is None:
        raise CheckpointError(f"{name} has no trained weights; train it, and give the run's folder")
    folder = PACKAGED_WEIGHTS / name if card.weights == PACKAGED else local_folder(card.weights)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}; install segearth again")
    if card.sha256 and (found := sha256_of(path)) != card.sha256:
        raise CheckpointError(f"{path}: sha256 {found} is not the card's {card.sha256}; fetch or install it again")
    return folder


def _is_misspelt(source: str) -> bool:
    """Whether a text is nearly a name of the zoo, and nothing else: no folder, path or hub id such as
    ``me/segearth_tiny``, whose account may well call its model like one here.
    """
    if "/" in source or source.startswith(PREFIX) or Path(source).exists():
        return False
    return bool(difflib.get_close_matches(source, CARDS, cutoff=0.85))


def _no_revision(source: str | Path, revision: str | None) -> None:
    if revision:
        raise ConfigError(f"revision {revision!r} goes with a hub id, and {str(source)!r} is none")
