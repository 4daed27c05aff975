"""Reads DIOR-RSVG: expressions about the objects of aerial images, each with its box."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from segearth.data.readers.entries import EntriesDataset
from segearth.data.readers.source_files import files_by_id, read_text
from segearth.errors import DatasetError
from segearth.structures import Boxes, Question

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class DiorRSVG(EntriesDataset):
    """26,991 / 3,829 / 7,500 expressions about 17,402 images of 800 x 800 pixels, 20 classes.

    A split's file lists objects by number, counted from 0 through the objects of all annotation files in the order of
    their names, so that images have objects in several splits. ``kind`` is the object's class. A box reaches from
    ``xmin, ymin`` to ``xmax, ymax`` as written. Paper: https://arxiv.org/abs/2210.12634. The layout was checked against
    the publisher's loader and files in https://github.com/ZhanYang-nwpu/RSVG-pytorch; its loader counts the files as
    the file system lists them, which is by name where the data set was made.
    """

    name: ClassVar[str] = "dior_rsvg"
    licence: ClassVar[str] = "not stated"
    homepage: ClassVar[str] = "https://github.com/ZhanYang-nwpu/RSVG-pytorch"
    image_folder: ClassVar[str] = "JPEGImages"
    annotation_folder: ClassVar[str] = "Annotations"
    tree: ClassVar[str] = """\
ROOT/
  train.txt  val.txt  test.txt    numbers of objects, one a line
  Annotations/ID.xml              <annotation><filename>ID.jpg</filename><object><name>ship</name>
                                  <bndbox><xmin>1</xmin>…</bndbox><description>…</description></object></annotation>
  JPEGImages/ID.jpg"""

    def _read(self) -> None:
        wanted = self._numbers(self.require(f"{self.split}.txt"))
        files = files_by_id(self.require_folder(self.annotation_folder), (".xml",))
        self.require_folder(self.image_folder)
        number = -1
        for path in files.values():
            try:
                annotation = ElementTree.parse(path).getroot()
            except (ElementTree.ParseError, OSError) as error:
                # Left out, its objects would be missing in the count and all that follow would be another split's.
                raise DatasetError(f"{path}: not valid XML ({error}); fetch it again") from error
            for element in annotation.findall("object"):
                number += 1
                if number not in wanted:
                    continue
                try:
                    entry = self._entry(element, number, path)
                except DatasetError as error:
                    self.note(error)
                    continue
                filename = (annotation.findtext("filename") or f"{path.stem}.jpg").strip()
                self._add(path.stem, entry, f"{self.image_folder}/{filename}")
        if wanted and max(wanted) > number:
            raise DatasetError(
                f"{self.name}: {self.split}.txt names object {max(wanted)}, and the files under "
                f"{self.root / self.annotation_folder} have {number + 1}; some are missing"
            )

    def _numbers(self, path: Path) -> set[int]:
        found = set()
        for line, written in enumerate(read_text(path).split(), start=1):
            if not written.isdigit():
                raise DatasetError(f"{path}:{line}: expected the number of an object, got {written!r}")
            found.add(int(written))
        return found

    def _entry(self, element: ElementTree.Element, number: int, path: Path) -> tuple[str, str, Boxes, int]:
        text = " ".join((element.findtext("description") or "").split())
        corners = [element.findtext(f"bndbox/{corner}") or "" for corner in CORNERS]
        where = f"{path}, object {number} of all"
        if not text:
            raise DatasetError(f"{where}: has no description")
        try:
            box = Boxes((tuple(float(corner) for corner in corners),))
        except ValueError as error:  # a DatasetError is one, too
            raise DatasetError(f"{where}: its box is {corners}, not four numbers in order") from error
        return text, (element.findtext("name") or "").strip(), box, number

    def _questions(self, image_id: str, entries: list[Any], height: int, width: int) -> list[Question]:
        return [
            Question(text, task="grounding", kind=kind, id=f"{image_id}_{number}", target=box)
            for text, kind, box, number in entries
        ]
