"""Worst flips: the right images, in the right order, with both vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantward.core.values import Predictions
from quantward.report._flips import worst


def pair(n: int = 60, k: int = 4, seed: int = 5) -> tuple[Predictions, Predictions]:
    draw = np.random.default_rng(seed)
    classes = tuple("abcd"[:k])
    ids = tuple(f"i{i}" for i in range(n))
    truth = draw.integers(0, k, n)
    return (
        Predictions(ids, truth, draw.dirichlet(np.ones(k), n), classes, "base"),
        Predictions(ids, truth, draw.dirichlet(np.ones(k), n), classes, "cand"),
    )


def test_the_order_is_how_far_the_truth_fell() -> None:
    base, cand = pair()
    expected = []
    for i, name in enumerate(base.ids):
        old, new, t = base.probabilities[i], cand.probabilities[i], base.truth[i]
        if old.argmax() != new.argmax():
            expected.append((old[t] - new[t], name))
    expected.sort(key=lambda item: -item[0])
    found = worst(base, cand, None, 12)
    assert [flip.id for flip in found] == [name for _, name in expected[:12]]
    assert len(worst(base, cand, None, 500)) == len(expected)


def test_kinds_and_vectors() -> None:
    base, cand = pair()
    place = {name: i for i, name in enumerate(base.ids)}
    for flip in worst(base, cand, None, 500):
        i = place[flip.id]
        old, new = base.probabilities[i], cand.probabilities[i]
        t = int(base.truth[i])
        right = (old.argmax() == t, new.argmax() == t)
        assert flip.kind == {(True, False): "broken", (False, True): "mended", (False, False): "moved"}[right]
        assert [bar.baseline for bar in flip.bars] == [f"{100 * p:.0f}" for p in old]
        assert [bar.candidate for bar in flip.bars] == [f"{100 * p:.0f}" for p in new]
        assert [bar.name for bar in flip.bars if bar.true] == [base.classes[t]] == [flip.truth]


def test_images_are_matched_by_name_and_classes_by_name() -> None:
    base, cand = pair()
    turn = np.random.default_rng(1).permutation(len(base))
    order = [2, 0, 3, 1]
    back = np.argsort(order)
    other = Predictions(
        tuple(cand.ids[i] for i in turn),
        back[cand.truth[turn]],
        cand.probabilities[turn][:, order],
        tuple(cand.classes[i] for i in order),
        "cand",
    )
    assert worst(base, other, None, 9) == worst(base, cand, None, 9)


def test_pictures_are_embedded_by_what_their_bytes_say() -> None:
    base, cand = pair(12)
    asked: list[str] = []

    def picture(name: str) -> bytes | None:
        asked.append(name)
        return {0: b"\xff\xd8\xff\xe0", 1: None, 2: b"GIF89a"}[len(asked) % 3]

    found = worst(base, cand, picture, 6)
    assert asked == [flip.id for flip in found]
    kinds = [flip.picture.split(";")[0] for flip in found]
    assert set(kinds) == {"", "data:image/jpeg"}


def test_no_flips_and_no_predictions() -> None:
    base, _ = pair()
    assert worst(base, base, None, 5) == ()
    assert worst(None, base, None, 5) == () == worst(base, None, None, 5)
    named = replace(base, ids=tuple(f"<{name}>" for name in base.ids))
    assert worst(named, named, None, 5) == ()
