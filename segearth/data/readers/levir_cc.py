"""Reads LEVIR-CC: pairs of images of one place, with five sentences about what has changed."""

from __future__ import annotations

from typing import Any, ClassVar

from segearth.data.readers.caption_list import CaptionListDataset
from segearth.structures import Task


class LevirCC(CaptionListDataset):
    """6,815 / 1,333 / 1,929 pairs of 256 x 256 pixels at 0.5 m, five sentences each.

    Paper: https://ieeexplore.ieee.org/document/9934924. The layout was checked against the publisher's page, its
    ``homepage``, and the fields of the file against public loaders. LEVIR-MCI, which adds masks, has the same files and
    can be read too. ``kind`` is ``"changed"`` or ``"unchanged"`` where the file says it (``changeflag``).
    """

    name: ClassVar[str] = "levir_cc"
    licence: ClassVar[str] = "not stated"
    homepage: ClassVar[str] = "https://github.com/Chen-Yang-Liu/LEVIR-CC-Dataset"
    captions: ClassVar[str] = "LevirCCcaptions.json"
    image_folder: ClassVar[str] = "images"
    before_folder: ClassVar[str] = "A"
    after_folder: ClassVar[str] = "B"
    task: ClassVar[Task] = "change_caption"
    question: ClassVar[str] = "What has changed between the two images?"
    tree: ClassVar[str] = """\
ROOT/
  LevirCCcaptions.json      {"images": [{"filename": "train_000001.png", "split": "train", "changeflag": 1,
                                         "sentences": [{"raw": "…"}]}]}
  images/
    train/  val/  test/
      A/NAME.png            the earlier image
      B/NAME.png            the later one"""

    def _pictures(self, filename: str) -> tuple[str, str | None]:
        folder = f"{self.image_folder}/{self.split}"
        return f"{folder}/{self.after_folder}/{filename}", f"{folder}/{self.before_folder}/{filename}"

    def _kind(self, entry: dict[str, Any]) -> str:
        if "changeflag" not in entry:
            return ""
        return "changed" if entry["changeflag"] else "unchanged"
