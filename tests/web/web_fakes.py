"""A segmenter of ten lines, and files to send it."""

from __future__ import annotations

import io
import threading
import time
from typing import Any

import numpy as np
from PIL import Image

from segearth.errors import UnknownNameError
from segearth.structures import Segmentation, connected_regions


class Halves:
    """Finds "left" and "right" in the halves of a picture, "corners" in two of its corners, and nothing else.

    Attributes:
        images: Mean colour of each picture that was set.
        at_once: The most calls that ran side by side; above 1 somebody disturbed another.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.images: list[float] = []
        self.at_once, self._running, self._seconds = 0, 0, seconds
        self._counting = threading.Lock()

    def set_image(self, image: Any) -> None:
        self.set_images([image])

    def set_images(self, images: Any) -> None:
        with self._counting:
            self._running += 1
            self.at_once = max(self.at_once, self._running)
        self._image = np.asarray(images[0])
        time.sleep(self._seconds)
        self.images.append(float(self._image.mean()))
        with self._counting:
            self._running -= 1

    def predict(self, questions: Any, *, task: Any = "referring", answer: bool = False, **options: Any) -> Any:
        if task == "blub":
            raise UnknownNameError("task", task, ["referring"])
        height, width = self._image.shape[:2]
        answers = []
        for text in questions:
            mask = np.zeros((height, width), bool)
            if "left" in text:
                mask[:, : width // 2] = True
            elif "right" in text:
                mask[:, width // 2 :] = True
            elif "corners" in text:
                mask[: height // 4, : width // 4] = mask[-height // 8 :, -width // 8 :] = True
            there = bool(mask.any())
            words = f"mean {self._image.mean():.0f}" if answer else None
            answers.append(
                Segmentation(text, mask, 0.75 * there, there, 0.9 if there else 0.1, words,
                             given_regions=connected_regions(mask, 0.75))
            )  # fmt: skip
        return answers


def picture_bytes(colour: int = 100, size: tuple[int, int] = (64, 48), format_: str = "PNG", **options: Any) -> bytes:
    """A plain picture of one colour; ``size`` is (width, height)."""
    file = io.BytesIO()
    Image.new("RGB", size, (colour, colour, colour)).save(file, format_, **options)
    return file.getvalue()


def geotiff_bytes(
    colour: int = 100, size: tuple[int, int] = (64, 48), crs: str | None = "EPSG:32614", **profile: Any
) -> bytes:  # fmt: skip
    """A three-band GeoTIFF of 2 m pixels whose upper left corner is at (500000, 4000000)."""
    import rasterio

    width, height = size
    given: dict[str, Any] = {
        "driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8",
        "transform": rasterio.Affine(2, 0, 500_000, 0, -2, 4_000_000), "crs": crs, **profile,
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**given) as file:
            ramp = np.linspace(0.2, 1, width) * colour  # one colour alone has nothing to stretch
            file.write(np.broadcast_to(ramp, (given["count"], height, width)).astype(given["dtype"]))
        return memory.read()
