"""What a test set can prove at all, said before anything runs; and how many images a margin needs.

Two models are compared on the same n images. The difference of their accuracies has the standard error
sqrt(discordance / n), with discordance the share of images that exactly one of them gets right. This is a first-order
plan: where the discordance is not larger than the margin itself, the score interval that a gate reads is more cautious,
and the power is nearer to one half.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from quantward.core.errors import UsageError


def _quantiles(discordance: float, alpha: float, power: float) -> tuple[float, float]:
    if not 0 <= discordance <= 1:
        raise UsageError(f"Expected a discordance between 0 and 1; got {discordance}. Write 0.04 for 4 %.")
    if not 0 < alpha < 0.5 or not 0.5 <= power < 1:
        raise UsageError(f"Expected 0 < alpha < 0.5 <= power < 1; got alpha {alpha}, power {power}. Use 0.025 and 0.8.")
    return NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)


def smallest_margin(n: int, discordance: float, alpha: float = 0.025, power: float = 0.8) -> float:
    """Smallest drop in accuracy (a share) that n images can exclude, were the two models equally good.

    (z_alpha + z_power) sqrt(discordance / n), and never below z_alpha^2 / (n + z_alpha^2), the score bound that
    remains where not a single image disagrees (Tango 1998). Paired, one-sided `alpha` (Lu and Bean 1995).

    >>> round(smallest_margin(142, 0.04), 4)
    0.047
    """
    level, reach = _quantiles(discordance, alpha, power)
    if n < 1:
        return 1.0
    return min(1.0, max((level + reach) * math.sqrt(discordance / n), level**2 / (n + level**2)))


def images_needed(margin: float, discordance: float, alpha: float = 0.025, power: float = 0.8) -> int:
    """How many images it takes to exclude a drop of `margin` (a share): the inverse of `smallest_margin`.

    >>> [images_needed(0.02, d) for d in (0.01, 0.02, 0.04, 0.08)]
    [197, 393, 785, 1570]
    """
    level, reach = _quantiles(discordance, alpha, power)
    if not 0 < margin < 1:
        raise UsageError(f"Expected a margin between 0 and 1; got {margin}. Write 0.02 for 2 points.")
    by_discordance = (level + reach) ** 2 * discordance / margin**2
    by_silence = level**2 * (1 - margin) / margin
    return math.ceil(max(by_discordance, by_silence) * (1 - 1e-12))


def sentence(
    n: int,
    discordance: float = 0.04,
    *,
    margin: float | None = None,
    n_groups: int | None = None,
    alpha: float = 0.025,
    power: float = 0.8,
) -> str:
    """What n test images can prove at an assumed or measured discordance, and what a wanted margin takes.

    `n_groups` groups (patients, lesions or look-alikes): then the same is said for one independent image a group, the
    cautious end.

    >>> sentence(142, 0.04, margin=0.02)
    '142 images at 4 % discordance prove no margin below 4.7 points; a margin of 2 points needs about 785 images.'
    """
    lowest = smallest_margin(n, discordance, alpha, power)
    images = "1 image" if n == 1 else f"{n:,} images"
    text = f"{images} at {100 * discordance:g} % discordance prove no margin below {100 * lowest:.1f} points"
    if n_groups is not None and n_groups < n:
        cautious = smallest_margin(n_groups, discordance, alpha, power)
        text += f" ({100 * cautious:.1f} if the images of each of the {n_groups:,} groups tell the same)"
    if margin is not None:
        needed = images_needed(margin, discordance, alpha, power)
        verb = "needs about" if n < needed else "needs only about"
        text += f"; a margin of {100 * margin:g} points {verb} {needed:,} images"
    return text + "."
