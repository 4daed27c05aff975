"""Reads RefSegRS: short referring phrases about aerial images with pixels of 0.13 m."""

from __future__ import annotations

from typing import ClassVar

from segearth.data.readers.phrase_list import PhraseListDataset


class RefSegRS(PhraseListDataset):
    """2,172 / 431 / 1,817 phrases about images of 512 x 512 pixels. Paper: https://arxiv.org/abs/2306.08625."""

    name: ClassVar[str] = "refsegrs"
    licence: ClassVar[str] = "CC BY 4.0"
    homepage: ClassVar[str] = "https://huggingface.co/datasets/JessicaYuan/RefSegRS"
    image_folder: ClassVar[str] = "images"
    mask_folder: ClassVar[str] = "masks"
    inside: ClassVar[tuple[str, ...]] = ("rs_ref_seg/RefSegRS", "RefSegRS")
    tree: ClassVar[str] = """\
ROOT/                              or a folder that holds it as rs_ref_seg/RefSegRS/
  images/N.tif
  masks/N.tif                      above 127 is target
  output_phrase_train.txt          "N phrase" per line
  output_phrase_val.txt
  output_phrase_test.txt"""
