"""Augmentations: a pure function of (seed, epoch, image), geometrically what they say, and an identity when told so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from quantward.core.errors import UsageError
from quantward.train.augment import AUGMENTS, Augment, apply, augment_named, uniforms


def batch(count: int = 4, size: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, size, size)).astype(np.float32))


def test_numbers_are_uniform_and_independent() -> None:
    draw = uniforms(0, 0, np.arange(4000), 4)
    assert draw.min() >= 0 and draw.max() < 1
    for column in draw.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(draw.T) - np.eye(4)).max() < 0.06
    neighbours = [uniforms(s, e, np.arange(4000), 1)[:, 0] for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert np.abs(np.corrcoef(neighbours) - np.eye(4)).max() < 0.06


def test_view_depends_on_seed_epoch_and_image_not_on_the_batch_it_is_in() -> None:
    x = batch()
    how = AUGMENTS["standard"]
    whole = apply(x, how, seed=3, epoch=2, images=np.array([10, 11, 12, 13]))
    part = apply(x[2:3], how, seed=3, epoch=2, images=np.array([12]))
    assert torch.equal(whole[2:3], part)
    for other in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 3}):
        assert not torch.equal(whole, apply(x, how, images=np.array([10, 11, 12, 13]), **other))


def test_no_augmentation_changes_nothing() -> None:
    x = batch()
    assert apply(x, Augment(), seed=0, epoch=0, images=np.arange(4)) is x


def test_flip_is_an_exact_mirror_for_the_share_asked_for() -> None:
    x = batch(400, 8)
    y = apply(x, Augment(flip=0.3), seed=0, epoch=0, images=np.arange(400))
    mirrored = torch.isclose(y, x.flip(3), atol=1e-2).flatten(1).all(1)
    kept = torch.isclose(y, x, atol=1e-2).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 0.23 < mirrored.float().mean().item() < 0.37


def centre(image: torch.Tensor) -> np.ndarray:
    weight = image[0] / image[0].sum()
    axis = torch.arange(image.shape[1], dtype=torch.float32)
    return np.array([(weight.sum(1) * axis).sum(), (weight.sum(0) * axis).sum()])


def test_shift_moves_a_spot_no_further_than_its_share() -> None:
    x = torch.zeros(64, 3, 41, 41)
    x[:, :, 19:22, 19:22] = 200.0
    y = apply(x, Augment(shift=0.1), seed=0, epoch=0, images=np.arange(64))
    moves = np.array([centre(image) - 20 for image in y])
    assert np.abs(moves).max() <= 4.1 + 1e-2
    assert np.abs(moves).max(0).min() > 3.0


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_rotation_keeps_the_radius_and_stays_within_the_angle(flip: float) -> None:
    x = torch.zeros(64, 3, 61, 61)
    x[:, :, 9:12, 29:32] = 200.0
    y = apply(x, Augment(flip=flip, rotate=15), seed=0, epoch=0, images=np.arange(64))
    spots = np.array([centre(image) - 30 for image in y])
    assert np.allclose(np.hypot(*spots.T), 20, atol=0.3)
    angles = np.degrees(np.arctan2(spots[:, 1], -spots[:, 0]))
    assert np.abs(angles).max() <= 15.1 and angles.max() > 10 and angles.min() < -10


def test_scale_and_brightness_and_contrast_are_what_they_say() -> None:
    x = torch.zeros(32, 3, 40, 40)
    x[:, :, 10:30, 10:30] = 100.0
    zoomed = apply(x, Augment(scale=0.2), seed=0, epoch=0, images=np.arange(32))
    side = np.sqrt(zoomed[:, 0].sum((1, 2)).numpy() / 100.0) / 20
    assert side.min() >= 0.8 - 0.01 and side.max() <= 1.2 + 0.01 and np.ptp(side) > 0.25
    light = apply(x, Augment(brightness=0.2), seed=0, epoch=0, images=np.arange(32)).amax((1, 2, 3)) / 100
    assert light.min() >= 0.8 and light.max() <= 1.2
    grey = apply(x, Augment(contrast=0.3), seed=0, epoch=0, images=np.arange(32))
    assert torch.allclose(grey.clamp(0.1).mean((1, 2, 3)), x.mean((1, 2, 3)), rtol=0.35)
    assert grey.min() >= 0 and grey.max() <= 255


def test_unknown_name_is_answered_with_the_near_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'light'"):
        augment_named("ligt")
