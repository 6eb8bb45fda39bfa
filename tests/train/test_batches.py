"""Batches: the core's own preprocessing to the bit, every image once an epoch, any starting point."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from quantward.core import preprocess
from quantward.core.errors import Refused
from quantward.core.values import Preprocess
from quantward.train.augment import AUGMENTS
from quantward.train.batches import Batches, Images


def test_inputs_equal_core_preprocessing_to_the_bit(images: Images) -> None:
    for how in (images.preprocess, Preprocess(32, 32, mean=(0.5, 0.4, 0.3), std=(0.21, 0.5, 0.33))):
        batch = Batches(images.pixels, images.labels, images.train, how).batch(images.train[:7])
        assert np.array_equal(batch.inputs.numpy(), preprocess.normalise(images.pixels[images.train[:7]], how))
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.tolist() == images.labels[images.train[:7]].tolist()


@pytest.mark.parametrize("size", [1, 5, 16, 47, 48, 100])
def test_every_image_once_and_no_tiny_last_batch(images: Images, size: int) -> None:
    batches = images.to_train(size, AUGMENTS["none"], seed=0)
    order = batches.order(0)
    assert len(order) == len(batches)
    assert sorted(np.concatenate(order)) == sorted(images.train)
    assert max(map(len, order)) <= size and max(map(len, order)) - min(map(len, order)) <= 1


def test_epochs_differ_and_repeat(images: Images) -> None:
    batches = images.to_train(8, AUGMENTS["standard"], seed=5)
    first, again, second = (np.concatenate(batches.order(e)) for e in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, second)


def test_an_epoch_can_start_anywhere(images: Images) -> None:
    batches = images.to_train(8, AUGMENTS["standard"], seed=5)
    whole, rest = list(batches.epoch(3)), list(batches.epoch(3, skip=4))
    assert len(rest) == len(whole) - 4
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_memory_mapped_read_only_pixels_work(images: Images, tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "pixels.npy", images.pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    batch = Batches(mapped, images.labels, images.train, images.preprocess).batch(images.train[:4])
    assert torch.equal(batch.inputs, images.to_train(4, AUGMENTS["none"], 0).batch(images.train[:4]).inputs)


def test_pixels_of_another_size_are_refused(images: Images) -> None:
    with pytest.raises(Refused, match=r"Expected pixels of shape \(72, 64, 64, 3\)"):
        Batches(images.pixels, images.labels, images.train, Preprocess(size=64, resize=64))


def test_a_balanced_epoch_shows_every_class_as_often_and_repeats_in_other_views(images: Images) -> None:
    rare = np.concatenate((images.train[images.labels[images.train] == 0][:3],
                           images.train[images.labels[images.train] > 0]))  # fmt: skip
    batches = dataclasses.replace(images, train=rare).to_train(8, AUGMENTS["standard"], seed=5, balance=True)
    n = len(images.labels)
    seen: list[int] = []
    for epoch in range(12):
        draws = np.concatenate(batches.order(epoch))
        assert len(draws) == len(rare) and len(set(draws.tolist())) == len(draws)
        counts = np.bincount(images.labels[draws % n])
        assert counts.max() - counts.min() <= 1 and set(draws % n) <= set(rare.tolist())
        # The three of the rare class come round and round before any comes once more.
        often = np.bincount(draws % n, minlength=n)[rare[:3]]
        assert often.max() - often.min() <= 1 and often.min() >= 3
        seen += (draws % n).tolist()
    assert set(seen) == set(rare.tolist())
    first, again = int(rare[0]), int(rare[0]) + n
    views = batches.batch(np.array([first, again]))
    assert views.indices.tolist() == [first, first] and not torch.equal(views.inputs[0], views.inputs[1])
    assert torch.equal(views.inputs[0], batches.batch(np.array([first])).inputs[0])
