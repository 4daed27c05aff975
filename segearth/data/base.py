"""The interface of every data set: a list of images, each with all its questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from segearth.errors import DatasetError, UnknownNameError, missing_entry
from segearth.structures import Sample
from segearth.utils.files import image_size


class SegmentationDataset(ABC):
    """One split of a data set: images with questions and masks, read from one folder.

    Subclasses set the class attributes below and implement :meth:`__len__` and :meth:`__getitem__`. Construction should
    only list the files and pair them by id; an image is decoded when it is indexed, so that a large data set opens
    quickly. If each image is a file, also implement :meth:`_image_path`: the sizes of all images are asked for before
    training starts, and without it every image is decoded for that.

    Attributes:
        name: The name in :data:`segearth.data.registry.DATASETS`.
        splits: The values that ``split`` may have.
        parts: From a split to the splits that are parts of it. All other pairs of splits must share no image.
        is_format: ``True`` for a file format that anybody's images may come in (such as COCO), ``False`` for one
            particular data set.
        tree: The expected folders and files, shown in the error when one of them is missing.
        licence: Licence of the data, for reports.
        homepage: Where the data set is published.
        problems: What construction found missing or wrong; always empty if ``strict`` is on.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    parts: ClassVar[dict[str, tuple[str, ...]]] = {}
    is_format: ClassVar[bool] = False
    tree: ClassVar[str]
    licence: ClassVar[str] = "unknown"
    homepage: ClassVar[str] = ""

    def __init__(self, root: str | Path, split: str, strict: bool = True) -> None:
        """Opens one split.

        Args:
            root: Folder that holds the layout shown in :attr:`tree`.
            split: One of :attr:`splits`.
            strict: If on, the first problem raises an error. If off, each problem is noted in :attr:`problems` and the
                entry left out, so that :func:`segearth.data.verify.verify_split` can list all of them.

        Raises:
            UnknownNameError: The split does not exist.
            DatasetError: The folder or an entry of the layout is missing.
        """
        if split not in self.splits:
            raise UnknownNameError(f"{self.name} split", split, self.splits)
        self.root, self.split, self.strict = Path(root), split, strict
        self.problems: list[str] = []
        if not self.root.is_dir():
            raise missing_entry(self.root, ".", self.tree, self.name)

    @classmethod
    def splits_in(cls, root: str | Path) -> tuple[str, ...]:
        """Returns the splits that can be opened under ``root``; formats in which some may be missing look there."""
        return cls.splits

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index`` with all its questions and masks at the image's own size."""

    def image_size(self, index: int) -> tuple[int, int]:
        """Returns height and width of image ``index``; if :meth:`_image_path` gives a file, only its header is read."""
        path = self._image_path(index)
        if path is not None:
            return image_size(path)
        height, width = self[index].image.shape[:2]
        return height, width

    def _image_path(self, index: int) -> Path | None:
        """Returns the file of image ``index``, or ``None`` for data sets whose images are not files."""
        del index
        return None

    def source_of(self, index: int) -> str:
        """Returns the data source of image ``index``, for reports, without reading it; default the data set's name."""
        return self.name

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def require(self, relative: str | Path) -> Path:
        """Returns ``root / relative``, or raises the error that prints the expected tree if it does not exist."""
        path = self.root / relative
        if not path.exists():
            raise missing_entry(self.root, relative, self.tree, self.name)
        return path

    def require_folder(self, relative: str | Path) -> Path:
        """Returns the folder ``root / relative``, or raises the error that prints the expected tree."""
        path = self.require(relative)
        if not path.is_dir():
            raise DatasetError(f"{self.name}: {path} must be a folder\nexpected:\n{self.tree.rstrip()}")
        return path

    def note(self, problem: DatasetError) -> None:
        """Raises ``problem`` if the data set is strict; else appends its first line to :attr:`problems`."""
        if self.strict:
            raise problem
        self.problems.append(str(problem).splitlines()[0])

    def nothing_usable(self, what: str) -> DatasetError:
        """Returns the error for a split without any usable image; it carries the problems that were noted.

        Args:
            what: The start of the message: where nothing was found.
        """
        wrong = f" ({len(self.problems)} wrong)" if self.problems else ""
        return DatasetError(f"{what}{wrong}\nexpected:\n{self.tree.rstrip()}", self.problems)

    def note_missing(self, relative: str | Path) -> None:
        """Notes that ``root / relative`` does not exist, although another file of the data set needs it."""
        self.note(missing_entry(self.root, relative, self.tree, self.name))


def check_mask(mask: np.ndarray, image: np.ndarray, mask_path: object, image_path: object) -> np.ndarray:
    """Returns ``mask`` as ``bool`` after checking that it has the image's size.

    Args:
        mask: ``(H, W)`` array; non-zero means target.
        image: ``(H, W, 3)`` array.
        mask_path: Named in the error.
        image_path: Named in the error.

    Raises:
        DatasetError: The sizes differ.
    """
    if mask.shape[:2] != image.shape[:2]:
        (mh, mw), (ih, iw) = mask.shape[:2], image.shape[:2]
        raise DatasetError(f"mask {mask_path} is {mw}x{mh} but image {image_path} is {iw}x{ih}; sizes must be equal")
    return mask.astype(bool)
