from __future__ import annotations

from dataclasses import replace

import numpy as np

from segearth.structures import Question, Regions


def test_presence_is_read_once_off_the_whole_mask() -> None:
    mask = np.zeros((9, 9), bool)
    assert Question("ships", mask).present is False
    assert Question("ships").present is None
    mask[4, 4] = True
    found = Question("ships", mask)
    assert found.present is True
    assert replace(found, target=Regions(mask[::3, ::3])).present is True  # the ship is between the samples
    assert replace(found, target=None).present is True
