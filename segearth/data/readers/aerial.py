"""aerial_mini, the data set that comes with the package: real images of seven openly licensed sources."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.table import load_table
from segearth.data.readers.source_files import parse_json, read_json, read_text
from segearth.errors import DatasetError, UnknownNameError
from segearth.structures import Question, Sample
from segearth.utils.files import read_image

SPLITS = ("train", "val", "test")
# The training split in two parts that share no place: to choose settings, a model is trained on `fit`, scored on `dev`.
PARTS_OF_TRAIN = ("fit", "dev")
DEV_SHARE = 0.2  # share of the training images in `dev`
UNSEEN_SPLITS = ("dev", "val", "test")  # questions in held-out words are only for tests, so train and fit have none
KEPT_ANNOTATED = 512  # how many decoded annotations are kept in memory, about 100 MB
QUESTION_SETS = ("fixed", "dense", "unseen", "seen", "none")
PACKAGED = Path(__file__).parents[1] / "aerial_mini"


class _FileNames(NamedTuple):
    images: str
    annotations: str
    questions: str
    dense: str
    unseen: str


FILE_NAMES = _FileNames(
    "images",
    "annotations.json",
    "questions_{split}.jsonl",
    "questions_dense_{split}.jsonl",
    "questions_unseen_{split}.jsonl",
)


class AerialMini(SegmentationDataset):
    """Real aerial images with annotated objects and up to eight fixed questions each.

    It is an :class:`~segearth.data.questions.annotation.AnnotatedDataset`: :meth:`annotated` gives the annotation, from
    which training builds new questions about any crop.

    Attributes:
        records: The split's entries of ``images`` in ``annotations.json``.
        questions: From an image's id to its lines of the question file.
    """

    name = "aerial_mini"
    licence = "per source: see LICENSES.md in its folder"
    homepage = "docs/aerial_mini.md"
    tree: ClassVar[str] = """aerial_mini/
  annotations.json
  questions_{train,val,test}.jsonl
  questions_dense_{train,val,test}.jsonl
  questions_unseen_{dev,val,test}.jsonl
  images/SOURCE/NAME.jpg
"""

    splits: ClassVar[tuple[str, ...]] = (*SPLITS, *PARTS_OF_TRAIN)
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"train": PARTS_OF_TRAIN}

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        questions: str = "fixed",
        table: str | Path | Sequence[str | Path] = (),
        sources: str | Sequence[str] = (),
    ) -> None:
        """Opens one split.

        Args:
            root: Folder of the layout; ``None`` for the copy that comes with the package.
            split: ``"train"``, ``"val"`` or ``"test"``; or ``"fit"`` or ``"dev"``, the two parts of the training split.
            questions: Which questions the samples have. ``"fixed"``: at most eight per image, of all kinds.
                ``"dense"``: every possible question of the rarer kinds, with pairs that differ in one word.
                ``"unseen"``: questions with words, and combinations of attribute and place, that training never uses
                (on dev, val and test only). ``"seen"``: the questions of ``"unseen"`` in words that training uses.
                ``"none"``: no questions; enough for training, which builds its own.
            table: Files with words and needs of your own, added to the built-in ones for the questions that training
                builds; see ``docs/expressions.md``. They do not change the questions in files.
            sources: Only the images of these, such as ``"gsi_road"`` or several; empty for all.

        Raises:
            UnknownNameError: The split, the set of questions or a source does not exist.
            ConfigError: A table is missing or not as described.
            DatasetError: A file is missing or damaged, or the split has no unseen questions.
        """
        super().__init__(PACKAGED if root is None else root, split)
        if questions not in QUESTION_SETS:
            raise UnknownNameError("aerial_mini question set", questions, QUESTION_SETS)
        self._wording = "seen" if questions == "seen" else "question"  # the field of a line that holds its text
        self.table = load_table(table)
        tree = read_json(self.require(FILE_NAMES.annotations))
        self.sources: dict[str, dict[str, list[str]]] = tree["sources"]
        stored = "train" if split in PARTS_OF_TRAIN else split
        self.records: list[dict[str, Any]] = [record for record in tree["images"] if record["split"] == stored]
        if split in PARTS_OF_TRAIN:
            held_out = development_groups(self.records)
            kept = split == "dev"
            self.records = [r for r in self.records if ((r["source"], r["group"]) in held_out) == kept]
        in_split = {record["id"] for record in self.records}
        if wanted := [sources] if isinstance(sources, str) else sources:
            for source in wanted:
                if source not in self.sources:
                    raise UnknownNameError("aerial_mini source", source, self.sources)
            self.records = [record for record in self.records if record["source"] in wanted]
        self._annotated_images: dict[int, AnnotatedImage] = {}
        self._categories = {category["id"]: category for category in tree["categories"]}
        self._annotations: dict[int, list[dict[str, Any]]] = {record["id"]: [] for record in self.records}
        for annotation in tree["annotations"]:
            if annotation["image_id"] in self._annotations:
                self._annotations[annotation["image_id"]].append(annotation)
        self.questions: dict[int, list[dict[str, Any]]] = {}
        if questions != "none":
            path = self.require(_question_file(questions, split))
            for number, line in enumerate(read_text(path).split("\n"), start=1):
                if not line.strip():
                    continue
                entry = parse_json(line, f"{path}:{number}: ")
                if entry["image_id"] in self._annotations:
                    self.questions.setdefault(entry["image_id"], []).append(entry)
                elif entry["image_id"] not in in_split and (split == stored or questions in ("unseen", "seen")):
                    raise DatasetError(
                        f"{path}: question {entry['id']} is about image {entry['image_id']}, not in {split}"
                    )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record, annotated = self.records[index], self.annotated(index)
        asked = [
            Question(
                entry[self._wording],
                annotated.union_mask(entry["object_ids"], tuple(entry["within"]) if "within" in entry else None),
                entry["answer"],
                entry["task"],
                entry["kind"],
                entry["id"],
                pairs=tuple(entry.get("pairs", ())),
            )
            for entry in self.questions.get(record["id"], ())
        ]
        meta = {key: record[key] for key in ("source", "group", "gsd_m")}
        return Sample(str(record["id"]), self.image(index), asked, self._image_path(index), meta)

    def _image_path(self, index: int) -> Path:
        return self.require(self.records[index]["file_name"])

    def source_of(self, index: int) -> str:
        """Returns the name of the source of image ``index``."""
        return self.records[index]["source"]

    def image(self, index: int) -> np.ndarray:
        """Returns image ``index`` as ``uint8`` RGB of shape ``(H, W, 3)``."""
        return read_image(self._image_path(index))

    def annotated(self, index: int) -> AnnotatedImage:
        """Returns the annotation of image ``index``.

        Annotations are kept in memory, since decoding one takes half of the time that a training view takes in all.
        """
        if index not in self._annotated_images:
            record = self.records[index]
            annotated = AnnotatedImage.from_coco(
                record, self._annotations[record["id"]], self._categories, **self.sources[record["source"]]
            )
            for item in annotated.objects:
                item.mask.flags.writeable = False  # every caller gets this same array
            if len(self._annotated_images) == KEPT_ANNOTATED:
                self._annotated_images.pop(next(iter(self._annotated_images)))  # the oldest one
            self._annotated_images[index] = annotated
        return self._annotated_images[index]


def _question_file(questions: str, split: str) -> str:
    if questions in ("unseen", "seen"):
        if split not in UNSEEN_SPLITS:
            known = ", ".join(UNSEEN_SPLITS)
            raise DatasetError(f"aerial_mini {split} has no {questions} questions; take one of the splits {known}")
        return FILE_NAMES.unseen.format(split=split)
    name = FILE_NAMES.questions if questions == "fixed" else FILE_NAMES.dense
    return name.format(split="train" if split in PARTS_OF_TRAIN else split)


def development_groups(records: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    """Chooses the groups of the training split that make up ``dev``: about a fifth of the images of each source.

    A group holds the images of one place, such as the crops of one photograph. Whole groups are chosen, by a hash of
    their names, so that no place is in both parts.

    Args:
        records: Entries of ``images`` with ``source`` and ``group``.

    Returns:
        ``(source, group)`` of each chosen group.
    """
    sizes: dict[str, dict[str, int]] = {}
    for record in records:
        groups = sizes.setdefault(record["source"], {})
        groups[record["group"]] = groups.get(record["group"], 0) + 1
    chosen = set()
    for source, groups in sizes.items():
        wanted, found = DEV_SHARE * sum(groups.values()), 0
        for group in sorted(groups, key=lambda name: hashlib.sha256(f"dev {source} {name}".encode()).hexdigest()):
            if found >= wanted:
                break
            chosen.add((source, group))
            found += groups[group]
    return chosen
