"""The embedded real data set: seven openly licensed aerial sources with fixed questions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.table import load_table
from segearth.data.readers.layout import parse_json, read_json, read_text
from segearth.errors import DatasetError, UnknownNameError
from segearth.structures import Question, Sample
from segearth.utils.files import read_image

SPLITS = ("train", "val", "test")
PARTS_OF_TRAIN = ("fit", "dev")  # in two by group: settings are chosen on dev, which fit has not seen
DEV_SHARE = 0.2
UNSEEN_SPLITS = ("dev", "val", "test")  # in held-out words nothing is trained, so train and fit have no such questions
KEPT_ANNOTATED = 512  # some 100 MB
QUESTION_SETS = ("fixed", "dense", "unseen", "seen", "none")
PACKAGED = Path(__file__).parents[1] / "aerial_mini"


class _Layout(NamedTuple):
    images: str
    annotations: str
    questions: str
    dense: str
    unseen: str


LAYOUT = _Layout(
    "images",
    "annotations.json",
    "questions_{split}.jsonl",
    "questions_dense_{split}.jsonl",
    "questions_unseen_{split}.jsonl",
)


class AerialMini(SegmentationDataset):
    """Real aerial images with object masks, and up to eight fixed questions each.

    Beside samples it gives :meth:`image` and :meth:`annotated`, from which fresh questions about any crop can be built.

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
    ) -> None:
        """Opens one split.

        Args:
            root: Folder of the layout; ``None`` is the copy that comes with the package.
            split: ``"train"``, ``"val"``, ``"test"``; or ``"fit"`` or ``"dev"``, which are the training split in two.
            questions: ``"fixed"``: at most eight an image, by kind. ``"dense"``: every question that can be asked of
                the rarer kinds, with pairs that differ in one word. ``"unseen"``, on dev, val and test: in words, and
                about attributes and places together, that training never draws; ``"seen"``: the same questions in words
                that it does draw. ``"none"``: no question, for training.
            table: Files with words and needs of your own, added to the built-in ones, for the fresh questions of
                training; see ``docs/expressions.md``. The fixed questions stay.

        Raises:
            UnknownNameError: The split or the set of questions does not exist.
            ConfigError: A table is missing or not as described.
            DatasetError: A file is missing or damaged, or a split without unseen questions is asked for them.
        """
        super().__init__(PACKAGED if root is None else root, split)
        if questions not in QUESTION_SETS:
            raise UnknownNameError("aerial_mini question set", questions, QUESTION_SETS)
        self._wording = "seen" if questions == "seen" else "question"  # the field of a line that holds its text
        self.table = load_table(table)
        tree = read_json(self.require(LAYOUT.annotations))
        self.sources: dict[str, dict[str, list[str]]] = tree["sources"]
        stored = "train" if split in PARTS_OF_TRAIN else split
        self.records: list[dict[str, Any]] = [record for record in tree["images"] if record["split"] == stored]
        if split in PARTS_OF_TRAIN:
            held_out = development_groups(self.records)
            kept = split == "dev"
            self.records = [r for r in self.records if ((r["source"], r["group"]) in held_out) == kept]
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
                elif split == stored or questions in ("unseen", "seen"):
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
        """The source of image ``index``."""
        return self.records[index]["source"]

    def image(self, index: int) -> np.ndarray:
        """Image ``index`` as ``uint8`` RGB of shape ``(H, W, 3)``."""
        return read_image(self._image_path(index))

    def annotated(self, index: int) -> AnnotatedImage:
        """The annotation of image ``index``, which is kept: decoding it takes half of the time of a fresh view."""
        if index not in self._annotated_images:
            record = self.records[index]
            annotated = AnnotatedImage.from_coco(
                record, self._annotations[record["id"]], self._categories, **self.sources[record["source"]]
            )
            for item in annotated.objects:
                item.mask.flags.writeable = False  # all who ask get the same one
            if len(self._annotated_images) == KEPT_ANNOTATED:
                self._annotated_images.pop(next(iter(self._annotated_images)))  # the one that was read first
            self._annotated_images[index] = annotated
        return self._annotated_images[index]


def _question_file(questions: str, split: str) -> str:
    if questions in ("unseen", "seen"):
        if split not in UNSEEN_SPLITS:
            known = ", ".join(UNSEEN_SPLITS)
            raise DatasetError(f"aerial_mini {split} has no {questions} questions; take one of the splits {known}")
        return LAYOUT.unseen.format(split=split)
    layout = LAYOUT.questions if questions == "fixed" else LAYOUT.dense
    return layout.format(split="train" if split in PARTS_OF_TRAIN else split)


def development_groups(records: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    """Chooses whole groups of each source, about a fifth of its images, by a hash of their names.

    A group is a photograph, a port or a chip: views of one place never lie on both sides.

    Args:
        records: Entries of ``images`` with ``source`` and ``group``.

    Returns:
        ``(source, group)`` of each group held out.
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
