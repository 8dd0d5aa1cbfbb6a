"""Phantoms: shapes of known volume, Hounsfield units, repeatable."""

import math

import numpy as np
import pytest

from workloads._imaging.phantom import (
    AIR_HU,
    LESION_HU,
    NOISE_HU,
    ORGAN_HU,
    Ellipsoid,
    anatomy,
    paint,
    phantom,
)


def parts_of(*, seed: int, classes: int) -> list[Ellipsoid]:
    return anatomy(np.random.default_rng(seed), classes=classes)


def volume_fraction(part: Ellipsoid) -> float:
    """Share of the field of view, if it lies inside."""
    return math.pi / 6 * math.prod(part.radii)


def test_painted_ellipsoid_has_its_analytic_volume() -> None:
    part = Ellipsoid(centre=(0.1, -0.2, 0.05), radii=(0.5, 0.4, 0.6), hu=70.0, label=1)
    _, label = paint([part], shape=(80, 96, 64))
    assert label.mean() == pytest.approx(volume_fraction(part), rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_organ_with_its_lesions_has_the_organs_volume(seed: int) -> None:
    parts = parts_of(seed=seed, classes=3)
    (organ,) = [part for part in parts if part.label == 1]
    _, label = paint(parts, shape=(72, 72, 60))
    assert (label > 0).mean() == pytest.approx(volume_fraction(organ), rel=0.02)


@pytest.mark.parametrize("classes", [2, 3, 4, 6, 10])
def test_every_class_is_present_and_no_other(classes: int) -> None:
    for index in range(4):
        _, label = phantom(shape=(64, 64, 48), classes=classes, seed=1, index=index)
        assert set(np.unique(label)) == set(range(classes))


@pytest.mark.parametrize("classes", [4, 6, 10])
def test_organs_do_not_touch(classes: int) -> None:
    organs = [part for part in parts_of(seed=3, classes=classes) if 0 < part.label < classes - 1]
    _, together = paint(organs, shape=(96, 96, 64))
    for organ in organs:
        _, alone = paint([organ], shape=(96, 96, 64))
        assert (together == organ.label).sum() == (alone > 0).sum()


def test_tissues_have_their_hounsfield_units() -> None:
    image, label = phantom(shape=(64, 64, 48), classes=3, seed=0, index=0)
    assert image.dtype == np.float32 and image.shape == (1, 64, 64, 48)
    corner = image[0, :6, :6]
    assert corner.mean() == pytest.approx(AIR_HU, abs=15)
    assert np.median(image[0][label == 1]) == pytest.approx(ORGAN_HU[0], abs=5)
    assert np.percentile(image[0][label == 2], 75) == pytest.approx(LESION_HU, abs=NOISE_HU)
    assert image.min() >= -1024


def test_scanner_noise_has_its_standard_deviation() -> None:
    first, second = phantom(shape=(48, 48, 32), classes=3, seed=0, index=0, channels=2)[0]
    inside = first > -500
    spread = (first - second)[inside].std() / np.sqrt(2)
    assert spread == pytest.approx(NOISE_HU, rel=0.05)


def test_same_seed_and_index_give_the_same_patient_and_others_differ() -> None:
    def make(*, seed: int, index: int) -> np.ndarray:
        return phantom(shape=(24, 24, 16), classes=3, seed=seed, index=index)[0]

    assert np.array_equal(make(seed=5, index=2), make(seed=5, index=2))
    assert not np.array_equal(make(seed=5, index=2), make(seed=5, index=3))
    assert not np.array_equal(make(seed=5, index=2), make(seed=6, index=2))


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="classes >= 2"):
        parts_of(seed=0, classes=1)
