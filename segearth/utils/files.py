"""Files: atomic writes, hashes, images read with clear errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segearth.errors import CheckpointError, ImageError, OutputError, SegEarthError
from segearth.utils.image_headers import deep_samples, unreadable_tiff

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag of the orientation; with a value above 4 the stored image lies on its side


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` when the block ends without an error.

    Args:
        path: Final file. Its folder is made. A file that is there already stays whole until the new one is complete.

    Raises:
        OutputError: The file cannot be written, because a file is where a folder should be, the folder may not be
            written to, or the disk is full.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_output_file(path: str | Path) -> None:
    """Checks that a file can be written at ``path``; call it before a long computation whose result goes there.

    Raises:
        OutputError: A folder has that name, or a folder above it is a file or cannot be written to.
    """
    path = Path(path)
    with _writing(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; name a file in it")
        _check_writable(path, _resolved(path).parent)


def check_apart(*paths: str | Path) -> None:
    """Checks that paths of several results name different files; else the later result would replace the earlier.

    Raises:
        OutputError: Two paths name the same file.
    """
    seen: set[Path] = set()
    for path in paths:
        with _writing(path):
            resolved = _resolved(path)
        if resolved in seen:
            raise OutputError(f"{path} is named twice, so that one file would replace the other; name another")
        seen.add(resolved)


def check_output_folder(path: str | Path) -> None:
    """Checks that ``path`` is a folder or can be made one; call it before a long computation whose results go there.

    Raises:
        OutputError: The folder, or one above it, is a file or cannot be written to.
    """
    with _writing(path):
        _check_writable(path, _resolved(path))


def check_new_folder(path: str | Path) -> Path:
    """Checks that a folder can be made at ``path``; call it before a long computation whose result goes there.

    Args:
        path: A name that is free, or an empty folder. Links are followed.

    Returns:
        The absolute path without links.

    Raises:
        CheckpointError: Something is there already, a folder above is a file or cannot be written to, or ``path`` is
            the working folder or a mount point, which cannot be replaced by renaming another folder.
    """
    try:
        folder = _resolved(path)
        above = _nearest_existing(folder)
        taken = above == folder and not (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:  # a name too long, a folder that cannot be listed, links in a circle
        raise CheckpointError(f"{path} cannot be made ({error}); name another folder") from error
    if taken:
        raise CheckpointError(f"{path} exists already; name a new folder, or delete it first")
    if not above.is_dir():
        raise CheckpointError(f"{path} cannot be made, since {above} is no folder; name another folder")
    if folder == Path.cwd() or os.path.ismount(folder):
        raise CheckpointError(f"{path} is the working folder or a mount point; name a new folder in it")
    parent = folder.parent if above == folder else above
    if not os.access(parent, os.W_OK | os.X_OK):
        raise CheckpointError(f"{path} cannot be made, since {parent} is not yours to write to; name another folder")
    return folder


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``path`` and renames it to ``path`` when the block ends without an error.

    Args:
        path: Final folder. Folders above it are made.

    Raises:
        CheckpointError: The folder cannot be made (see :func:`check_new_folder`), or another process has made it while
            the block ran.
        OutputError: The folder cannot be written, for instance because the disk is full.
    """
    folder = check_new_folder(path)
    with _writing(path):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:40]}."))
        try:
            yield temporary
            check_new_folder(folder)
            temporary.chmod(0o777 & ~_umask())
            temporary.replace(folder)  # this also works if an empty folder is there
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


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a file; ``False`` also for a name that is too long, for which ``Path.is_file`` raises."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def exists(path: str | Path) -> bool:
    """Whether ``path`` is there; ``False`` also for a text that is too long for a name, such as an outline as WKT."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file as RGB, honouring its EXIF orientation.

    Args:
        path: JPEG, PNG, TIFF or anything else Pillow opens. Grey becomes RGB, alpha is dropped, and of an animation
            the first frame is taken.

    Returns:
        ``uint8`` array of shape ``(H, W, 3)``.

    Raises:
        ImageError: The file is missing, damaged, not 8-bit, or of more pixels than Pillow opens.
    """
    path = _existing(path, "image")
    with _decoding(path) as image:
        return rgb_of(image, path)


def rgb_of(image: Image.Image, name: object) -> np.ndarray:
    """Returns a Pillow image as an RGB array. Files and images in memory both go through this function.

    Args:
        image: The image; it is turned as its EXIF orientation says.
        name: Named in errors.

    Returns:
        ``uint8`` array of shape ``(H, W, 3)``.

    Raises:
        ImageError: It has more than 8 bits a sample, or cannot be decoded.
    """
    from PIL import ImageOps

    with _named_errors(name):
        if deep := deep_samples(image):
            raise ImageError(f"{name}: {deep}")
        turned = ImageOps.exif_transpose(image)
        if "transparency" in turned.info:  # Pillow warns when a palette with alpha goes to RGB directly
            turned = turned.convert("RGBA")
        return np.asarray(turned.convert("RGB"))


def image_size(path: str | Path) -> tuple[int, int]:
    """Returns the height and width that :func:`read_image` gives; usually only the file's header is read.

    Raises:
        ImageError: The file is missing or damaged.
    """
    path = _existing(path, "image")
    with _decoding(path) as image:
        # A PNG may state its orientation at its end. That is rare, and Pillow would decode the whole file to look for
        # it, so for a PNG only an orientation in the header counts.
        in_header = image.format != "PNG" or "exif" in image.info
        if in_header and image.getexif().get(_ORIENTATION, 1) > 4:
            # Whether `size` is that of the turned image depends on the format, so the image itself is asked.
            height, width = rgb_of(image, path).shape[:2]
        else:
            width, height = image.size
    return height, width


def read_mask(path: str | Path, threshold: int = 0) -> np.ndarray:
    """Reads a mask file. A pixel belongs to the target if its value in any channel is above ``threshold``.

    Args:
        path: A grey image of any bit depth, or a coloured one of 8 bits.
        threshold: 0 takes every non-zero value. 127 is for 8-bit masks that were resampled and have grey edges: it
            takes the pixels that are more than half covered. It has no effect on masks written as 0 and 1.

    Returns:
        Boolean array of shape ``(H, W)``.

    Raises:
        ImageError: The file is missing, damaged, of more pixels than Pillow opens, or coloured with more than 8 bits a
            channel. Pillow would keep only the high bits of such an image, so that a value of 1 would become 0.
    """
    path = _existing(path, "mask")
    with _decoding(path) as image:
        if image.mode[0] not in "IF" and (deep := deep_samples(image)):
            raise ImageError(f"{path}: {deep.split(';')[0]}; save the mask as a grey PNG of 0 and 255")
        # For a palette image the array holds the palette's indices. They are what was drawn as the mask; the colours
        # behind them are only for viewing.
        array = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
    levels = array if array.ndim == 2 else array[..., :3].max(axis=-1)
    return levels.astype(bool) if levels.max(initial=0) <= 1 else levels > threshold


def configs_dir() -> Path:
    """Returns the folder of experiment and DeepSpeed configurations: the repository's, or the installed copy of it."""
    package = Path(__file__).resolve().parent.parent
    beside = package.parent / "configs"
    return beside if (beside / "experiment").is_dir() else package / "configs"


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Turns an ``OSError`` of the block into an ``OutputError`` with a remedy."""
    try:
        yield
    except SegEarthError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space or name another place" if full else "name another place"
        raise OutputError(f"{path} cannot be written ({error.strerror or error}); {remedy}") from error


def _check_writable(path: str | Path, folder: Path) -> None:
    above = _nearest_existing(folder)
    if not above.is_dir():
        raise OutputError(f"{path} cannot be written, since {above} is no folder; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written, since {above} is not yours to write to; name another place")


def _resolved(path: str | Path) -> Path:
    try:
        return Path(path).resolve()
    except RuntimeError as error:  # before Python 3.13, links that lead in a circle raise this and not an OSError
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error


def _nearest_existing(path: Path) -> Path:
    """Returns ``path`` or the nearest folder above it that exists; a link that leads nowhere counts as existing."""
    return next(each for each in (path, *path.parents) if each.exists() or each.is_symlink())


def _existing(path: str | Path, what: str) -> Path:
    if is_file(path):
        return Path(path)
    with contextlib.suppress(OSError):
        if Path(path).is_dir():
            raise ImageError(f"{path} is a folder; name the {what} file itself")
    raise ImageError(f"no {what} file {path}")


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[Image.Image]:
    """Opens an image file, and turns every error of the block into an ``ImageError``."""
    from PIL import Image, UnidentifiedImageError

    with _named_errors(path):
        try:
            opened = Image.open(path)
        except UnidentifiedImageError:
            if tiff := unreadable_tiff(path):
                raise ImageError(f"{path}: {tiff}") from None
            raise
        with opened as image:
            yield image


@contextlib.contextmanager
def _named_errors(name: object) -> Iterator[None]:
    """Turns every error of the block into an ``ImageError`` with the image's name and a remedy."""
    from PIL import Image

    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        message = f"{name}: more than the {limit} pixels that Pillow opens; `segearth scene` reads it by windows"
        raise ImageError(message) from error
    except Exception as error:  # Pillow's decoders raise many unrelated classes on damaged files
        raise ImageError(f"{name}: damaged or not an image ({error}); open it in a viewer or fetch it again") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def file_state(path: str | Path) -> dict[str, int | None]:
    """Returns size and time of change of a local file, to notice later that it is another one."""
    try:
        state = Path(path).stat()
    except OSError:
        return {"bytes": None, "changed_ns": None}  # a remote file, or none
    return {"bytes": state.st_size, "changed_ns": state.st_mtime_ns}
