"""Reads the layout of RefSegRS and RISBench: a list of phrases per split, and one image and one mask per id."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from segearth.data.base import SegmentationDataset, check_mask
from segearth.data.readers.source_files import IMAGE_SUFFIXES, files_by_id, find_root, read_text
from segearth.errors import DatasetError
from segearth.structures import Question, Sample
from segearth.utils.files import read_image, read_mask


class PhraseListDataset(SegmentationDataset):
    """A data set with ``ID phrase`` on each line of ``output_phrase_{split}.txt``.

    Several lines with the same id are questions about the same image.

    Masks have grey values at their edges. By default a pixel belongs to the target if it is more than half covered,
    which is a value above 127. Public loaders of these data sets differ: some take any non-zero value, some take values
    above 50. This moves the edge by about a pixel, and ``threshold`` sets it.

    Attributes:
        image_folder: Folder of the images.
        mask_folder: Folder of the masks.
        inside: Folders under the given root in which the layout is looked for too.
    """

    image_folder: ClassVar[str]
    mask_folder: ClassVar[str]
    inside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: str | Path, split: str, strict: bool = True, threshold: int = 127) -> None:
        """Opens one split and pairs phrases, images and masks by id.

        Args:
            root: Folder that holds the layout shown in ``tree``.
            split: ``"train"``, ``"val"`` or ``"test"``.
            strict: See :class:`~segearth.data.base.SegmentationDataset`.
            threshold: In [0, 254]: mask values above it belong to the target. It has no effect on masks of 0 and 1.

        Raises:
            DatasetError: A folder, the list, or the image or mask of a listed id is missing, or a line has no phrase.
        """
        list_name = f"output_phrase_{split}.txt"
        super().__init__(find_root(root, (list_name,), self.inside), split, strict)
        self.threshold = threshold
        listed = self._read_list(self.require(list_name))
        self._images = files_by_id(self.require_folder(self.image_folder), IMAGE_SUFFIXES)
        self._masks = files_by_id(self.require_folder(self.mask_folder), IMAGE_SUFFIXES)
        self._phrases_by_id = {image_id: phrases for image_id, phrases in listed.items() if self._is_complete(image_id)}
        self._ids = list(self._phrases_by_id)
        if not self._ids:
            raise self.nothing_usable(f"{self.name}: {self.root / list_name} lists no complete image")

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        """Decodes image ``index`` with all its phrases, in the order of the list.

        Raises:
            ImageError: The image or mask cannot be decoded.
            DatasetError: Their sizes differ.
        """
        image_id = self._ids[index]
        image_path, mask_path = self._images[image_id], self._masks[image_id]
        image = read_image(image_path)
        mask = check_mask(read_mask(mask_path, self.threshold), image, mask_path, image_path)
        phrases = self._phrases_by_id[image_id]
        questions = [Question(phrase, mask, id=f"{image_id}_{k}") for k, phrase in enumerate(phrases)]
        return Sample(image_id, image, questions, image_path)

    def _image_path(self, index: int) -> Path:
        return self._images[self._ids[index]]

    def _read_list(self, path: Path) -> dict[str, list[str]]:
        phrases_by_id: dict[str, list[str]] = {}
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            words = line.split(maxsplit=1)
            if len(words) == 2:
                name = Path(words[0])
                image_id = name.stem if name.suffix.lower() in IMAGE_SUFFIXES else words[0]
                phrases_by_id.setdefault(image_id, []).append(words[1].strip())
            elif words:
                self.note(DatasetError(f"{path}:{number}: expected an id and a phrase, got {line.strip()!r}"))
        return phrases_by_id

    def _is_complete(self, image_id: str) -> bool:
        folders = {self.image_folder: self._images, self.mask_folder: self._masks}
        missing = [f"{folder}/{image_id}.*" for folder, files in folders.items() if image_id not in files]
        for entry in missing:
            self.note_missing(entry)
        return not missing
