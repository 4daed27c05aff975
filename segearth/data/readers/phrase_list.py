"""The layout of RefSegRS and RISBench: a phrase list per split, one image and one mask per id."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from segearth.data.base import SegmentationDataset, check_mask
from segearth.data.readers.layout import IMAGE_SUFFIXES, files_by_id, find_root, read_text
from segearth.errors import DatasetError
from segearth.structures import Question, Sample
from segearth.utils.files import read_image, read_mask


class PhraseListDataset(SegmentationDataset):
    """``output_phrase_{split}.txt`` with ``ID phrase`` per line; several lines of one id are questions of one image.

    Masks hold grey values at their edges: a pixel is target if it is more than half covered, that is above 127 of 255.
    Public loaders differ (some take any non-zero value, some those above 50), which moves the edge by about a pixel;
    ``threshold`` sets it.

    Attributes:
        image_folder: Folder of the images.
        mask_folder: Folder of the masks.
        inside: Where else the layout may lie under the given root.
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
            threshold: Mask values above it are target, in [0, 254]; masks written as 0 and 1 are taken as they are.

        Raises:
            DatasetError: A folder, the list, or the image or mask of a listed id is missing, or a line has no phrase.
        """
        list_name = f"output_phrase_{split}.txt"
        super().__init__(find_root(root, (list_name,), self.inside), split, strict)
        self.threshold = threshold
        phrases = self._read_list(self.require(list_name))
        self._images = files_by_id(self.require_folder(self.image_folder), IMAGE_SUFFIXES)
        self._masks = files_by_id(self.require_folder(self.mask_folder), IMAGE_SUFFIXES)
        self._phrases = {image_id: texts for image_id, texts in phrases.items() if self._whole(image_id)}
        self._ids = list(self._phrases)
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
        questions = [Question(text, mask, id=f"{image_id}_{k}") for k, text in enumerate(self._phrases[image_id])]
        return Sample(image_id, image, questions, image_path)

    def _image_path(self, index: int) -> Path:
        return self._images[self._ids[index]]

    def _read_list(self, path: Path) -> dict[str, list[str]]:
        phrases: dict[str, list[str]] = {}
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            words = line.split(maxsplit=1)
            if len(words) == 2:
                name = Path(words[0])
                image_id = name.stem if name.suffix.lower() in IMAGE_SUFFIXES else words[0]
                phrases.setdefault(image_id, []).append(words[1].strip())
            elif words:
                self.note(DatasetError(f"{path}:{number}: expected an id and a phrase, got {line.strip()!r}"))
        return phrases

    def _whole(self, image_id: str) -> bool:
        folders = {self.image_folder: self._images, self.mask_folder: self._masks}
        missing = [f"{folder}/{image_id}.*" for folder, files in folders.items() if image_id not in files]
        for entry in missing:
            self.note_missing(entry)
        return not missing
