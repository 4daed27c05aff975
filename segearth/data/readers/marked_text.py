"""Marks in the conversations of VRSBench, GeoChat and EarthDial: ``[refer]``, ``<image>``, ``<box>[[…]]</box>``.

Boxes are written in hundredths of the image's sides: as ``{<25><40><33><60>}``, and by GeoChat and EarthDial as
``[xmin, ymin, xmax, ymax, degrees]``, a box that is turned about its centre. A turned one is read as the level box
around it, as GeoVLM-R1 (https://arxiv.org/abs/2509.25026) does; that one is the same whichever way it is turned.
"""

from __future__ import annotations

import re

from segearth.metrics.boxes import clip_boxes, rotated_to_horizontal

HUNDRED = 100.0  # a side of the image
TAGS = re.compile(r"\[([a-z]\w*(?:\.\d+)?)\]")  # of tasks and sensors: [refer], [hr_rgb_0.5]
BOX = re.compile(r"<box>(.*?)</box>", re.DOTALL)
_LIST = re.compile(r"\[([-+\d.,\s]+)\]|\{((?:\s*<[-+\d.]+>\s*){4})\}")
_WRITTEN = re.compile(r"\[[-+\d.,\s\[\]]*\]|\{(?:\s*<[-+\d.]+>\s*){4}\}")  # boxes with all brackets around them
_WRAPPED = re.compile(r"</?(?:ref|p)>")
_PLACEHOLDER = re.compile(r"<image>|<ImageHere>")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def tags_of(text: str) -> list[str]:
    """Returns the marks of task and sensor in a question, without brackets."""
    return TAGS.findall(text)


def plain(text: str) -> str:
    """Returns a text without marks, placeholders and boxes; what ``<ref>`` names stays.

    Example:
        >>> plain("[refer] [hr_rgb_0.5] <image> \\\\n where is <ref>1 white ship</ref>?")
        'where is 1 white ship?'
    """
    without = BOX.sub(" ", TAGS.sub(" ", _PLACEHOLDER.sub(" ", text.replace("\\n", " "))))
    words = " ".join(_WRAPPED.sub("", _WRITTEN.sub(" ", without)).split())
    return re.sub(r"\s+([,.?!;])", r"\1", words)


def boxes_of(text: str, height: int, width: int) -> tuple[tuple[float, float, float, float], ...]:
    """Returns every box that is written in a text, cut at the image.

    Args:
        text: With boxes in hundredths of the image's sides.
        height: Of the image in pixels.
        width: Of the image in pixels.

    Returns:
        ``(x0, y0, x1, y1)`` in pixels of the image. Lists of other than four or five numbers are passed over.

    Example:
        >>> boxes_of("[[10, 20, 30, 40, 0]][[50, 50, 60, 70, 90]]", 100, 100)
        ((10.0, 20.0, 30.0, 40.0), (45.0, 55.0, 65.0, 65.0))
        >>> boxes_of("{<25><40><33><160>}", 50, 200)
        ((50.0, 20.0, 66.0, 50.0),)
    """
    found = []
    for match in _LIST.finditer(text):
        numbers = [float(number) for number in _NUMBER.findall(match[0])]
        if len(numbers) not in (4, 5):
            continue
        x0, x1 = sorted(value * width / HUNDRED for value in (numbers[0], numbers[2]))
        y0, y1 = sorted(value * height / HUNDRED for value in (numbers[1], numbers[3]))
        degrees = numbers[4] if len(numbers) == 5 else 0.0
        if degrees:
            turned = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, degrees)
            x0, y0, x1, y1 = (round(float(value), 6) for value in rotated_to_horizontal(turned)[0])
        left, top, right, bottom = (float(value) for value in clip_boxes((x0, y0, x1, y1), height, width)[0])
        found.append((left, top, right, bottom))
    return tuple(found)
