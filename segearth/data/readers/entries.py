"""What the readers of questions that are answered in words or boxes share: images, each with the entries about it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segearth.data.base import SegmentationDataset
from segearth.errors import DatasetError
from segearth.structures import Question, Sample
from segearth.utils.files import is_file, read_image


@dataclass(slots=True)
class EntriesOfImage:
    """An image, or a pair, and what the data set's files say about it.

    Attributes:
        path: The image; of a pair the later one.
        before: Of a pair the earlier image.
        entries: Of the data set's files, in their order.
    """

    path: Path
    before: Path | None = None
    entries: list[Any] = field(default_factory=list)


class EntriesDataset(SegmentationDataset):
    """Images with entries; a subclass says how they are listed (:meth:`_read`) and what an image is asked.

    Everything but the pictures is read when a split is opened.
    """

    def __init__(self, root: str | Path, split: str, strict: bool = True) -> None:
        """Opens one split and finds the image of each entry.

        Args:
            root: Folder that holds the layout shown in ``tree``.
            split: One of ``splits``.
            strict: See :class:`~segearth.data.base.SegmentationDataset`.

        Raises:
            DatasetError: A file is missing, or an entry is not as expected.
        """
        super().__init__(root, split, strict)
        self._images: dict[str, EntriesOfImage] = {}
        self._missing: set[str] = set()
        self._read()
        self._ids = list(self._images)
        if not self._ids:
            raise self.nothing_usable(f"{self.name}: {self.root} has no usable entry of split {split!r}")

    @abstractmethod
    def _read(self) -> None:
        """Reads the split's files and gives :meth:`_add` each entry."""

    @abstractmethod
    def _questions(self, image_id: str, entries: list[Any], height: int, width: int) -> list[Question]:
        """Returns what an image is asked.

        Args:
            image_id: Its id.
            entries: As they were added.
            height: Of the image in pixels.
            width: Of the image in pixels.
        """

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index``, or both images of the pair, with all questions.

        Raises:
            ImageError: A picture cannot be decoded.
            DatasetError: The images of a pair differ in size, or an entry is not as expected.
        """
        image_id = self._ids[index]
        found = self._images[image_id]
        image = read_image(found.path)
        before = None if found.before is None else read_image(found.before)
        if before is not None and before.shape != image.shape:
            sizes = " and ".join(f"{one.shape[1]}x{one.shape[0]}" for one in (before, image))
            raise DatasetError(f"the pair {found.before} and {found.path} has the sizes {sizes}; they must be equal")
        questions = self._questions(image_id, found.entries, *image.shape[:2])
        return Sample(image_id, image, questions, found.path, before=before)

    def _image_path(self, index: int) -> Path:
        return self._images[self._ids[index]].path

    def _add(self, image_id: str, entry: Any, relative: str, before: str | None = None) -> None:
        """Adds an entry to its image; where a picture is missing, notes that once and leaves the entry out.

        Args:
            image_id: Of the image, or of the pair.
            entry: What is said about it.
            relative: The picture, relative to the root.
            before: Of a pair the earlier picture.
        """
        if image_id not in self._images:
            for one in (relative, before):
                if one is None or one in self._missing:
                    continue
                if not is_file(self.root / one):
                    self._missing.add(one)
                    self.note_missing(one)
            if {relative, before} & self._missing:
                return
            earlier = None if before is None else self.root / before
            self._images[image_id] = EntriesOfImage(self.root / relative, earlier)
        self._images[image_id].entries.append(entry)


def texts_of(entry: Any, keys: tuple[str, ...], where: str) -> list[str]:
    """Returns fields of an entry as texts without spaces at their ends.

    Args:
        entry: Of a JSON file.
        keys: Its fields; numbers are turned into texts.
        where: The file and the entry, for the message.

    Raises:
        DatasetError: The entry is no object, or a field is missing, empty or neither text nor number.
    """
    if not isinstance(entry, dict):
        raise DatasetError(f"{where}: expected an object with {', '.join(keys)}")
    found = []
    for key in keys:
        value = entry.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise DatasetError(f"{where}: {key!r} is {value!r}; expected a text that is not empty")
        found.append(str(value).strip())
    return found


def list_of(content: Any, key: str | None, where: object) -> list[Any]:
    """Returns a list of a JSON file's content.

    Args:
        content: Of the file.
        key: Where the list is; ``None``: the content itself.
        where: The file, for the message.

    Raises:
        DatasetError: There is none.
    """
    found = content if key is None else content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise DatasetError(f"{where}: expected {'a list' if key is None else f'an object with a list {key!r}'}")
    return found
