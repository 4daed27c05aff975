"""Models of the hub as folders that open: in this library's own form as they are, published SegEarth-R1 converted once.

A converted model stays in a cache. Its folder counts only if :data:`NOTE` lies in it, which is written last, and if
every file has the size noted there: whatever a conversion that was cut off has left is removed and made again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from segearth import __version__
from segearth.config import PROMPTED_CARD
from segearth.convert.driver import convert
from segearth.convert.reading import INDEXES, read_json_object
from segearth.convert.segearth_r1 import SWIN
from segearth.errors import CheckpointError, OutputError
from segearth.models.build import build_on_meta
from segearth.models.pretrained import CONFIG_FILE, WEIGHTS_FILE, load_weights, read_config
from segearth.utils.files import check_output_folder, write_text
from segearth.utils.hub import download

logger = logging.getLogger(__name__)
CONVERTER = 1  # raise it when a conversion writes something else than before: what older ones wrote is then made anew
NOTE = "conversion.json"
VARIABLE = "SEGEARTH_CACHE"
SMALL = ["*.json"]  # tells what a model is, before its gigabytes are fetched
NEEDED = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bin"]  # of a published model; its Python is never wanted
NOT_NEEDED = ["*/*", "training_args.bin", "optimizer*"]  # what training left beside it


def cache_folder(cache: str | Path | None = None) -> Path:
    """Returns the folder of converted models.

    Args:
        cache: The one asked for. If left out: what the environment variable ``SEGEARTH_CACHE`` names, or else
            ``segearth`` in the user's cache (``XDG_CACHE_HOME``, or ``~/.cache``).
    """
    chosen = cache or os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segearth"


def fetch(hub_id: str, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """Returns a folder with a model of the hub, which ``SegEarth.from_pretrained`` opens if it is a SegEarth model.

    A published SegEarth-R1 is converted the first time. Processes that ask for it at once wait for the first one.

    Args:
        hub_id: ``owner/name``.
        revision: Branch, tag or commit; the main branch if left out.
        cache: See :func:`cache_folder`.

    Raises:
        CheckpointError: The hub has no such model or cannot be reached, or the model is in neither form, or damaged.
        OutputError: The cache cannot be written.
    """
    try:
        described = download(hub_id, revision=revision, allow_patterns=SMALL)
    except CheckpointError:
        # The hub cannot be reached and its client keeps nothing of this model, but a converted copy may be here still.
        notes = {folder: _note(folder) for folder in converted(hub_id, cache)}
        asked = revision or "main"
        known = [folder for folder, note in notes.items() if asked in (note.get("revision"), note.get("commit"))]
        if not known:
            raise
        logger.warning("the hub does not answer about %s; opening what was converted before, %s", hub_id, known[-1])
        return known[-1]
    commit = described.name  # the two downloads must be of one commit, whatever is pushed between them
    prompted = (described / PROMPTED_CARD).is_file()  # another family, which segearth.load opens from its folder
    if prompted or read_json_object(described / CONFIG_FILE).get("library") == "segearth":
        return download(hub_id, revision=commit)
    if not _is_published(described):
        raise CheckpointError(
            f"{hub_id} is neither a model that segearth saved (its {CONFIG_FILE} would say so) nor a published "
            "SegEarth-R1; if it is a part of one, such as a language model, `segearth zoo convert` puts it into a model"
        )
    folder = _home(hub_id, cache) / f"{commit[:12]}-{CONVERTER}"
    return folder if is_whole(folder) else _convert_once(hub_id, revision, commit, folder)


def converted(hub_id: str, cache: str | Path | None = None) -> list[Path]:
    """Returns the whole folders of a model in the cache that the present converter made, the newest last."""
    folders = [folder for folder in _home(hub_id, cache).glob(f"*-{CONVERTER}") if is_whole(folder)]
    return sorted(folders, key=lambda folder: (folder / NOTE).stat().st_mtime)


def is_whole(folder: Path) -> bool:
    """Whether a conversion came to its end in this folder and all its files are as long as they were then."""
    noted, found = _note(folder).get("sizes"), _sizes(folder)
    return isinstance(noted, dict) and bool(noted) and all(found.get(name) == size for name, size in noted.items())


def _convert_once(hub_id: str, revision: str | None, commit: str, folder: Path) -> Path:
    from filelock import FileLock, Timeout

    try:
        check_output_folder(folder.parent)
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OutputError as error:
        raise OutputError(f"{error}: set {VARIABLE} to a folder for converted models") from error
    # The system lets go of the lock when a process ends, however it ends.
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process is converting %s; waiting for it (%s)", hub_id, lock.lock_file)
        lock.acquire()
    try:
        if not is_whole(folder):
            _remove_remains(folder)
            _convert(hub_id, revision, commit, folder)
    finally:
        lock.release()
    return folder


def _convert(hub_id: str, revision: str | None, commit: str, folder: Path) -> None:
    source = download(hub_id, revision=commit, allow_patterns=NEEDED, ignore_patterns=NOT_NEEDED)
    logger.warning("converting %s, once, into %s", hub_id, folder)
    for line in convert([str(source)], folder).lines:
        logger.info("%s", line)
    try:  # read again from the disk, strictly: every tensor must be there and fit, and none takes memory for long
        load_weights(build_on_meta(read_config(folder)), folder / WEIGHTS_FILE)
    except CheckpointError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(f"{hub_id}: the disk did not keep what was converted ({error}); try again") from error
    facts = {
        "source": hub_id, "revision": revision or "main", "commit": commit, "converter": CONVERTER,
        "version": __version__, "sizes": _sizes(folder),
    }  # fmt: skip
    write_text(folder / NOTE, json.dumps(facts, indent=2) + "\n")


def _remove_remains(folder: Path) -> None:
    """Removes what a conversion that was cut off has left; call it under the lock, when nobody converts."""
    remains = [folder, *folder.parent.glob(f".{folder.name}.*")]  # atomic_folder's temporary names
    for path in (path for path in remains if path.is_dir()):
        logger.warning("%s is what an interrupted conversion has left; removing it", path)
        shutil.rmtree(path)


def _is_published(described: Path) -> bool:
    """Whether a model's small files tell of a published SegEarth-R1: the tensors in its index, or else its type."""
    indexes = [read_json_object(path) for path in map(described.joinpath, INDEXES) if path.is_file()]
    if indexes:
        places = [index.get("weight_map") for index in indexes]
        return any(str(name).startswith(SWIN + "layers.") for names in places for name in names or ())
    return read_json_object(described / CONFIG_FILE).get("model_type") == "llava_phi"


def _home(hub_id: str, cache: str | Path | None) -> Path:
    return cache_folder(cache) / "converted" / hub_id.replace("/", "--")


def _note(folder: Path) -> dict[str, Any]:
    try:
        return read_json_object(folder / NOTE)
    except CheckpointError:  # cut short
        return {}


def _sizes(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != NOTE]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}
