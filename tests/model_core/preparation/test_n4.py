from __future__ import annotations

import numpy as np

from model_core.imaging.volume import Volume
from model_core.preparation.n4 import correct_bias
from tests.model_core.preparation.builders import SHAPE, head, tissues


def unevenness(volume: Volume) -> float:
    """Spread of the white matter, which should be of one brightness."""
    white = volume.array[tissues() == 5]
    return float(white.std() / white.mean())


def test_a_field_that_was_put_on_is_taken_off() -> None:
    clean = head("t1")
    ramp = np.linspace(0.6, 1.5, SHAPE[1])[None, :, None]
    uneven = Volume((clean.array * ramp).astype(np.float32), clean.affine)
    corrected, spread = correct_bias(uneven)
    assert unevenness(uneven) > 2 * unevenness(clean)
    assert unevenness(corrected) < 1.1 * unevenness(clean)
    assert spread > 1.5
    assert corrected.grid.matches(uneven.grid)


def test_air_of_a_stripped_image_stays_0_and_no_value_changes_its_sign() -> None:
    stripped = head("t2", skull=False)
    corrected, _ = correct_bias(stripped)
    np.testing.assert_array_equal(corrected.array == 0, stripped.array == 0)
    assert corrected.array.min() >= 0
