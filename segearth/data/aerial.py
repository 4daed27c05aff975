"""The embedded real data set: seven openly licensed aerial sources with fixed questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.expressions.table import load_table
from segearth.data.layout import parse_json, read_json, read_text
from segearth.data.scene import Scene
from segearth.errors import DatasetError
from segearth.structures import Question, Sample
from segearth.utils.files import read_image

SPLITS = ("train", "val", "test")
PACKAGED = Path(__file__).with_name("aerial_mini")


class _Layout(NamedTuple):
    images: str
    annotations: str
    questions: str


LAYOUT = _Layout("images", "annotations.json", "questions_{split}.jsonl")


class AerialMini(SegmentationDataset):
    """Real aerial images with object masks, and up to eight fixed questions each.

    Beside samples it gives :meth:`image` and :meth:`scene`, from which fresh questions about any crop can be built.

    Attributes:
        records: The split's entries of ``images`` in ``annotations.json``.
        questions: Lines of the split's question file by image id.
    """

    name = "aerial_mini"
    licence = "per source: see LICENSES.md in its folder"
    homepage = "docs/aerial_mini.md"
    tree: ClassVar[str] = """aerial_mini/
  annotations.json
  questions_{train,val,test}.jsonl
  images/SOURCE/NAME.jpg
"""

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        questions: bool = True,
        table: str | Path | Sequence[str | Path] = (),
    ) -> None:
        """Opens one split.

        Args:
            root: Folder of the layout; ``None`` is the copy that comes with the package.
            split: ``"train"``, ``"val"`` or ``"test"``.
            questions: Whether to read the fixed questions; without, samples have none.
            table: Files with words and needs of your own, added to the built-in ones, for the fresh questions of
                training; see ``docs/expressions.md``. The fixed questions stay.

        Raises:
            UnknownNameError: The split does not exist.
            ConfigError: A table is missing or not as described.
            DatasetError: A file is missing or damaged.
        """
        super().__init__(PACKAGED if root is None else root, split)
        self.table = load_table(table)
        tree = read_json(self.require(LAYOUT.annotations))
        self.sources: dict[str, dict[str, list[str]]] = tree["sources"]
        self.records: list[dict[str, Any]] = [record for record in tree["images"] if record["split"] == split]
        self._categories = {category["id"]: category for category in tree["categories"]}
        self._annotations: dict[int, list[dict[str, Any]]] = {record["id"]: [] for record in self.records}
        for annotation in tree["annotations"]:
            if annotation["image_id"] in self._annotations:
                self._annotations[annotation["image_id"]].append(annotation)
        self.questions: dict[int, list[dict[str, Any]]] = {}
        if questions:
            path = self.require(LAYOUT.questions.format(split=split))
            for number, line in enumerate(read_text(path).split("\n"), start=1):
                if not line.strip():
                    continue
                entry = parse_json(line, f"{path}:{number}: ")
                if entry["image_id"] not in self._annotations:
                    raise DatasetError(
                        f"{path}: question {entry['id']} is about image {entry['image_id']}, not in {split}"
                    )
                self.questions.setdefault(entry["image_id"], []).append(entry)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record, scene = self.records[index], self.scene(index)
        asked = [
            Question(
                entry["question"],
                scene.union_mask(entry["object_ids"], tuple(entry["within"]) if "within" in entry else None),
                entry["answer"],
                entry["task"],
                entry["kind"],
                entry["id"],
            )
            for entry in self.questions.get(record["id"], ())
        ]
        meta = {key: record[key] for key in ("source", "group", "gsd_m")}
        return Sample(str(record["id"]), self.image(index), asked, self._image_path(index), meta)

    def _image_path(self, index: int) -> Path:
        return self.require(self.records[index]["file_name"])

    def source_of(self, index: int) -> str:
        """The source of image ``index``."""
        return self.records[index]["source"]

    def image(self, index: int) -> np.ndarray:
        """Image ``index`` as ``uint8`` RGB of shape ``(H, W, 3)``."""
        return read_image(self._image_path(index))

    def scene(self, index: int) -> Scene:
        """The annotation of image ``index``."""
        record = self.records[index]
        return Scene.from_coco(
            record, self._annotations[record["id"]], self._categories, **self.sources[record["source"]]
        )
