"""Reads RISBench: 52,472 referring expressions about images with pixels of 0.1 to 30 m."""

from __future__ import annotations

from typing import ClassVar

from segearth.data.readers.phrase_list import PhraseListDataset


class RISBench(PhraseListDataset):
    """26,300 / 10,013 / 16,159 expressions on images of 512 x 512 pixels. Paper: https://arxiv.org/abs/2410.08613."""

    name: ClassVar[str] = "risbench"
    licence: ClassVar[str] = "CC BY 4.0"
    homepage: ClassVar[str] = "https://github.com/HIT-SIRS/CroBIM"
    image_folder: ClassVar[str] = "img_rgb"
    mask_folder: ClassVar[str] = "mask"
    inside: ClassVar[tuple[str, ...]] = ("RISBench_dataset", "RISBench", "rs_ref_seg/RISBench")
    tree: ClassVar[str] = """\
ROOT/                              or a folder that holds it as RISBench_dataset/
  img_rgb/NAME
  mask/NAME                        same name as the image up to the suffix; above 127 is target
  output_phrase_train.txt          "NAME phrase" per line, with or without the suffix
  output_phrase_val.txt
  output_phrase_test.txt"""
