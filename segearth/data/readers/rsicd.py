"""Reads RSICD: aerial images with five sentences each."""

from __future__ import annotations

from typing import Any, ClassVar

from segearth.data.readers.caption_list import CaptionListDataset
from segearth.structures import Task


class RSICD(CaptionListDataset):
    """10,921 images of 224 x 224 pixels, five sentences each. Paper: https://arxiv.org/abs/1712.07835.

    The layout was checked against the loader of https://github.com/isaaccorley/torchrs. The ``kind`` of a question is
    the scene class, which most file names begin with (``airport_1.jpg``); of names that are a number it is empty.
    """

    name: ClassVar[str] = "rsicd"
    licence: ClassVar[str] = "not stated"
    homepage: ClassVar[str] = "https://github.com/201528014227051/RSICD_optimal"
    captions: ClassVar[str] = "dataset_rsicd.json"
    image_folder: ClassVar[str] = "RSICD_images"
    task: ClassVar[Task] = "caption"
    question: ClassVar[str] = "Describe this image in one sentence."
    tree: ClassVar[str] = """\
ROOT/
  dataset_rsicd.json        {"images": [{"filename": "airport_1.jpg", "split": "train", "sentences": [{"raw": "…"}]}]}
  RSICD_images/NAME.jpg"""

    def _pictures(self, filename: str) -> tuple[str, str | None]:
        return f"{self.image_folder}/{filename}", None

    def _kind(self, entry: dict[str, Any]) -> str:
        return str(entry["filename"]).rpartition("_")[0]
