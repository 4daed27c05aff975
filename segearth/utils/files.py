"""Files: atomic writes, hashes, images read with clear errors."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segearth.errors import ImageError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` when the block ends without an error.

    Args:
        path: Final file. Its folder is made. An older file stays whole until the new one is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``path`` and renames it to ``path`` when the block ends without an error.

    Raises:
        FileExistsError: ``path`` is there already and not an empty folder.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(path)  # takes the place of an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` as UTF-8 to a temporary name and renames it to ``path``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: str | Path) -> str:
    """Returns the SHA-256 of a file as lower-case hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file as RGB, honouring its EXIF orientation.

    Args:
        path: JPEG, PNG, TIFF or anything else Pillow opens. Grey becomes RGB, alpha is dropped.

    Returns:
        ``uint8`` array of shape ``(H, W, 3)``.

    Raises:
        ImageError: The file is missing, damaged, or not 8-bit.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise ImageError(f"no image file {path}")
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ImageError(f"{path}: mode {image.mode} is not 8-bit; stretch it to 8 bits a channel first")
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path}: damaged or not an image ({error}); open it in a viewer or fetch it again") from error


def read_mask(path: str | Path, threshold: int = 0) -> np.ndarray:
    """Reads a mask file; a value above ``threshold`` in any channel is target.

    Args:
        path: A one- or three-channel image of any bit depth.
        threshold: 0 takes every non-zero value. 127 halves the grey edges of 8-bit masks that were resampled; masks
            written as 0 and 1 have no greys and are read as they are.

    Returns:
        Boolean array of shape ``(H, W)``.

    Raises:
        ImageError: The file is missing or damaged.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise ImageError(f"no mask file {path}")
    try:
        with Image.open(path) as image:
            # A palette holds colours, not classes: its indices are what was drawn.
            array = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: damaged or not an image ({error})") from error
    levels = array if array.ndim == 2 else array[..., :3].max(axis=-1)
    return levels.astype(bool) if levels.max(initial=0) <= 1 else levels > threshold


def configs_dir() -> Path:
    """Returns the folder of experiment and DeepSpeed configurations: the checkout's, or the copy in the package."""
    package = Path(__file__).resolve().parent.parent
    beside = package.parent / "configs"
    return beside if (beside / "experiment").is_dir() else package / "configs"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
