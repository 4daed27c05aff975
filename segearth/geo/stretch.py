"""From a scene's values, of whatever type, to the 8 bits that a model sees.

The limits belong to the whole scene. If each tile had its own, a tile of dark forest would be brightened until its
shadows looked like roofs, and two tiles would show the ground between them in different colours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segearth.errors import ConfigError, ImageError
from segearth.geo.raster import SceneRaster
from segearth.geo.tiling import plan_tiles
from segearth.geo.windows import Window

SAMPLE_SIDE = 1024  # of the picture of the whole scene from which limits are taken
SPOTS = 16  # along each side of a large scene without overviews; together they have as many pixels as that picture
BLOCK = 1024  # side of the windows in which valid pixels are looked for where there are none among these
MAX_BLOCKS = 1 << 12  # that are looked at then

Limits = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SceneStretch:
    """Limits between which values are spread over 0 to 255, one pair for each of three bands.

    Attributes:
        low: Values that become 0, as all below them do.
        high: Values that become 255, as all above them do.
    """

    low: Limits
    high: Limits

    @classmethod
    def of(
        cls, scene: SceneRaster, low: float = 2, high: float = 98, joint: bool = False, keep_uint8: bool = True
    ) -> SceneStretch:
        """Takes limits from a scene's valid pixels, of which about a million spread evenly are looked at.

        Args:
            scene: The scene.
            low: Percentage of values that lie below the lower limit.
            high: Percentage that lie below the upper one.
            joint: One pair of limits for all bands. By default each band has its own, as in QGIS, so that a model sees
                the colours a person would: haze, which lifts blue above red, is taken off, and bands of different units
                can be shown together. One pair keeps the bands' proportions, as calibrated reflectances may want it.
            keep_uint8: Leave a scene of 8 bits as it is: someone has stretched it already.

        Returns:
            The limits. A band of one value becomes mid-grey. Without any valid pixel they are 0 and 1.

        Raises:
            ConfigError: The percentages are not in order.
            ImageError: The file is damaged, or so large that its few valid pixels cannot be found.
        """
        if not 0 <= low < high <= 100:
            raise ConfigError(f"the stretch goes from {low} to {high} per cent; give 0 <= low < high <= 100")
        if scene.dtype == np.uint8 and keep_uint8:
            return cls((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
        sample = _sample(scene)
        if not len(sample):
            return cls((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        pairs = [_limits(sample, low, high)] * 3 if joint else [_limits(sample[:, i], low, high) for i in range(3)]
        (r0, r1), (g0, g1), (b0, b1) = pairs
        return cls((r0, g0, b0), (r1, g1, b1))

    @property
    def is_identity(self) -> bool:
        """Whether values of 8 bits stay as they are."""
        return set(self.low) == {0.0} and set(self.high) == {255.0}

    def apply(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Brings values to 8 bits.

        Args:
            values: ``(h, w, 3)`` of any type of real numbers.
            valid: Boolean ``(h, w)``; other pixels become black, as in the mosaics that models are trained on.

        Returns:
            ``uint8`` ``(h, w, 3)``.
        """
        if values.dtype == np.uint8 and self.is_identity:
            return values if valid.all() else np.where(valid[..., None], values, np.uint8(0))
        numbers = values.astype(np.result_type(values.dtype, np.float32))
        numbers[~valid] = 0  # what is no number may stand there
        numbers -= np.asarray(self.low, numbers.dtype)
        numbers *= np.asarray([255 / (top - bottom) for bottom, top in zip(self.low, self.high, strict=True)])
        eight_bits = np.rint(np.clip(numbers, 0, 255, out=numbers), out=numbers).astype(np.uint8)
        eight_bits[~valid] = 0
        return eight_bits

    def facts(self) -> dict[str, Any]:
        """Returns the limits by name, to be kept beside results that depend on them."""
        return asdict(self)


def _limits(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    bottom, top = (float(value) for value in np.percentile(values, (low, high)))
    if bottom >= top:  # nearly all pixels have one value: then the few others decide
        bottom, top = float(values.min()), float(values.max())
    if bottom >= top:
        bottom, top = bottom - 0.5, bottom + 0.5
    return bottom, top


def _sample(scene: SceneRaster) -> np.ndarray:
    """Returns values of valid pixels, ``(N, 3)``."""
    if scene.has_overviews or max(scene.height, scene.width) <= 4 * SAMPLE_SIDE:
        pictures = [scene.read_whole(SAMPLE_SIDE)]
    else:
        pictures = [scene.read_own(spot) for spot in _spots(scene.height, scene.width)]
    values = np.concatenate([values[valid] for values, valid in pictures])
    # The few valid pixels of a scene may lie between those that were looked at.
    for number, window in enumerate(plan_tiles(scene.height, scene.width, BLOCK, 0) if not len(values) else ()):
        if number == MAX_BLOCKS:
            raise ImageError(f"{scene.name} has no valid pixel in its upper part; cut out what it has (gdal_translate)")
        found, valid = scene.read_own(window)
        if valid.any():
            return found[valid]
    return values


def _spots(height: int, width: int) -> list[Window]:
    """Returns small windows that are spread evenly: to read a large file as a whole would take minutes."""
    side = SAMPLE_SIDE // SPOTS
    rows, columns = ((np.arange(SPOTS) + 0.5) / SPOTS * length - side / 2 for length in (height, width))
    tops, lefts = rows.clip(0).astype(int).tolist(), columns.clip(0).astype(int).tolist()
    spots = {Window(top, left, min(side, height - top), min(side, width - left)) for top in tops for left in lefts}
    return sorted(spots)  # of a scene that is long and narrow, many are the same
