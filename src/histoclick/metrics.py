"""What a run of simulated clicks is worth: IoU, NoC, NoF, SPC, curves, intervals. Pure numpy.

``ious`` below is always (N, K) float: a row per patch, a column per click, IoU in [0, 1] after that
click, and NaN where a patch got no further click. One row (K,) works too wherever one number per
patch is the answer.

Patches of one slide resemble each other, so every interval and every p value resamples *slides*:
``slides`` is (N,), the slide each row was cut from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from histoclick.types import HistoclickError, Mask

Floats = NDArray[np.floating]
RESAMPLES = 10_000
EXACT_SLIDES = 20  # up to here all 2**slides sign patterns are tried
BLOCK = 4_000_000  # numbers held at once while resampling
NORMAL = NormalDist()
FAR_PX = 64  # farther away, a click is not meant to change anything
HARM = 0.05  # IoU; who loses more than this has to repair it


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence bounds; the bounds are NaN where a single slide gives none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """A mean paired difference, its confidence bounds, and the p value of "no difference"."""

    p: float


def iou(a: Mask, b: Mask, ignore: Mask | None = None) -> float:
    """Intersection over union of two (H, W) bool masks, in [0, 1].

    Pixels in ``ignore`` count on neither side. NaN when both masks are empty: there was nothing to
    find, and neither 0 nor 1 would be true (the reference implementation divides 0 by 0 as well).
    """
    if a.shape != b.shape:
        raise HistoclickError(
            f"cannot compare masks of different size, {a.shape} and {b.shape}; resize the "
            "prediction to its image first"
        )
    intersection, union = a & b, a | b
    if ignore is not None:
        intersection, union = intersection & ~ignore, union & ~ignore
    size = np.count_nonzero(union)
    return np.count_nonzero(intersection) / size if size else float("nan")


def clicks_to_reach(ious: Floats, target: float, max_clicks: int) -> NDArray[np.int64]:
    """The first click, counted from 1, with IoU >= ``target``; ``max_clicks`` if there is none.

    Returns one number per row. As in the reference implementation, ``max_clicks`` is only the
    number a failure counts: to judge a smaller budget than was run, cut ``ious`` first. The IoU is
    compared in the precision it is stored in, so a float32 0.9 does reach 0.9.
    """
    reached = np.asarray(ious) >= float(target)
    return np.where(reached.any(-1), reached.argmax(-1) + 1, max_clicks)


def failed(ious: Floats, target: float, max_clicks: int) -> NDArray[np.bool_]:
    """Whether none of the first ``max_clicks`` clicks reaches ``target``, one answer per row."""
    reached = np.asarray(ious)[..., :max_clicks] >= float(target)
    return np.asarray(~reached.any(-1))


def noc(ious: Floats, target: float, max_clicks: int) -> float:
    """NoC@q, the mean number of clicks to ``target``; a failure counts ``max_clicks`` (Xu 2016)."""
    return float(clicks_to_reach(ious, target, max_clicks).mean())


def nof(ious: Floats, target: float, max_clicks: int) -> int:
    """NoF@q, the number of images that never reach ``target`` within ``max_clicks``.

    Divide by ``len(ious)`` for NoF/n. Reaching the target on the very last click is a success. The
    published evaluation code counts ``clicks == max_clicks`` instead, which takes such successes
    for failures: our NoF is lower than its ``over_max`` by exactly their number.
    """
    return int(failed(ious, target, max_clicks).sum())


def seconds_per_click(seconds: Floats) -> float:
    """SPC, the mean of (N, K) ``seconds`` over all clicks made (NaN: no click)."""
    return float(np.nanmean(seconds))


def with_encode(seconds: Floats, encode_seconds: Floats) -> Floats:
    """``seconds`` with the encode of each patch spread evenly over the clicks on it.

    Their mean is (encode + sum of seconds) / clicks, the SPC to compare with families that do all
    their work at every click. ``seconds``: (N, K) s, NaN where no click was made;
    ``encode_seconds``: (N,) s. Returns (N, K) s.
    """
    made = np.isfinite(seconds).sum(1)
    return np.asarray(seconds + (encode_seconds / np.maximum(made, 1))[:, None])


def held(ious: Floats) -> Floats:
    """``ious`` with its NaN filled by the IoU before: who stops clicking keeps the mask."""
    last = np.maximum.accumulate(np.where(np.isnan(ious), 0, np.arange(ious.shape[-1])), axis=-1)
    filled: Floats = np.take_along_axis(ious, last, axis=-1)
    return filled


def mean_curve(ious: Floats) -> Floats:
    """(K,) mean IoU after click 1..K; patches that stopped early count with their last IoU."""
    return np.asarray(held(ious).mean(0))


def curve_area(ious: Floats) -> Floats:
    """Normalised area under the IoU-click curve of every row, in [0, 1].

    Trapezoids between click 1 and click K, divided by K - 1, so a constant IoU is its own area;
    for K = 1 that IoU itself.
    """
    curve = held(ious)
    if curve.shape[-1] == 1:
        return np.asarray(curve[..., 0])
    return np.asarray((curve[..., 1:] + curve[..., :-1]).mean(-1) / 2)


def harmful(ious: Floats, least: float = 0.0) -> Floats:
    """Whether a click made it worse: 1 where it lowered the IoU by more than ``least``, else 0.

    Returns (N, K - 1) for all columns but the first, NaN where no click was made. Its mean is the
    harm rate (FocSAM's IoU difference between clicks, Huang et al. 2024, counted). Put the IoU of
    the starting masks before the first click, if there were any: it can spoil them too.
    """
    change = np.diff(np.asarray(ious, dtype=np.float64), axis=-1)
    return np.where(np.isnan(change), np.nan, change < -least)


def far_share(flips: Floats) -> Floats:
    """Which part of what a click changed lies farther than ``FAR_PX`` from it.

    ``flips``: (N, K, 2) px that a click flipped, and those of them far from it. Returns (N, K) in
    [0, 1], NaN where nothing was flipped.
    """
    flipped, far = np.moveaxis(np.asarray(flips, dtype=np.float64), -1, 0)
    shares: Floats = np.divide(far, flipped, out=np.full(far.shape, np.nan), where=flipped > 0)
    return shares


def mean_interval(
    values: Floats,
    slides: Sequence[str] | NDArray[np.generic],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of (N,) ``values`` and its bootstrap interval over slides, see `mean_intervals`."""
    column = np.asarray(values)[:, None]
    return mean_intervals(column, slides, level=level, resamples=resamples, seed=seed)[0]


def mean_intervals(
    values: Floats,
    slides: Sequence[str] | NDArray[np.generic],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """The mean of each column of (N, M) ``values`` with its cluster bootstrap interval.

    Slides are drawn with replacement, all rows of a drawn slide together, and the bounds are bias
    corrected and accelerated (BCa; Efron 1987). Where the correction does not exist (every
    resample on one side of the mean, no influence of any slide, an acceleration beyond its pole)
    they are plain percentiles. A single slide has no interval: its bounds are NaN.

    Raises ``HistoclickError`` for no rows, unequal lengths or values that are not finite.
    """
    sums, sizes = _per_slide(values, slides)
    means = np.asarray(values, dtype=np.float64).mean(0)
    if len(sizes) == 1:
        return [Interval(float(mean), np.nan, np.nan) for mean in means]
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            (times @ sums) / (times @ sizes)[:, None]
            for times in _slide_draws(len(sizes), resamples, rng)
        ]
    )
    without_one = (sums.sum(0) - sums) / (sizes.sum() - sizes)[:, None]
    return [
        Interval(float(mean), *_bca(mean, drawn[:, i], without_one[:, i], level))
        for i, mean in enumerate(means)
    ]


def paired_difference(
    values: Floats,
    baseline: Floats,
    slides: Sequence[str] | NDArray[np.generic],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """How (N,) ``values`` differ from (N,) ``baseline`` of the same patches, on average.

    Interval: cluster bootstrap of the per-patch differences. p value: sign-flip permutation; if
    there is no difference, the sum of differences of a slide is as likely to have the other sign.
    Two-sided on the mean difference; exact up to 20 slides, ``resamples`` random patterns above.
    """
    differences = np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    interval = mean_interval(differences, slides, level=level, resamples=resamples, seed=seed)
    sums = _per_slide(differences[:, None], slides)[0][:, 0]
    p = _sign_flip_p(sums, resamples, np.random.default_rng(seed))
    return Difference(interval.mean, interval.low, interval.high, p)


def _per_slide(
    values: Floats, slides: Sequence[str] | NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum (S, M) of the rows of each slide and their number (S,), slides in sorted order."""
    if len(values) == 0 or len(values) != len(slides):
        raise HistoclickError(
            f"a mean needs one slide name for every value, got {len(values)} values and "
            f"{len(slides)} names; pass the rows of one run, and at least one"
        )
    if not np.isfinite(values).all():
        raise HistoclickError("a mean needs finite values; drop the patches without a number first")
    names, slide = np.unique(np.asarray(slides), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, slide, values)
    return sums, np.bincount(slide)


def _blocks(rows: int, columns: int) -> Iterator[int]:
    """Heights of blocks that make up ``rows``, none with much more than ``BLOCK`` numbers."""
    block = max(1, BLOCK // columns)
    for start in range(0, rows, block):
        yield min(block, rows - start)


def _slide_draws(
    slides: int, resamples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """How often each slide is drawn when ``slides`` are drawn with replacement, (rows, slides)."""
    for rows in _blocks(resamples, slides):
        picks = rng.integers(slides, size=(rows, slides)) + slides * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * slides).reshape(rows, slides)


def _bca(
    mean: float, drawn: NDArray[np.float64], without_one: NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Bounds from the resampled means (B,) and the leave-one-slide-out means (S,)."""
    # Equal means differ in the last bit with the order of summation; do not let that vote.
    tie = 1e-12 * max(1.0, float(np.abs(drawn).max()))
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    below = (np.mean(drawn < mean - tie) + np.mean(drawn <= mean + tie)) / 2
    influence = without_one.mean() - without_one
    spread = float(np.square(influence).sum())
    if 0 < below < 1 and spread > tie**2:
        bias = NORMAL.inv_cdf(float(below))
        acceleration = float((influence**3).sum()) / (6 * spread**1.5)
        z = bias + np.array([NORMAL.inv_cdf(float(tail)) for tail in tails])
        room = 1 - acceleration * z
        if (room > 0).all():
            tails = np.array([NORMAL.cdf(float(x)) for x in bias + z / room])
    low, high = np.quantile(drawn, tails)
    return float(low), float(high)


def _sign_flip_p(sums: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> float:
    """Share of sign patterns whose total is at least as far from zero as the one observed."""
    least = abs(float(sums.sum())) - 1e-9 * float(np.abs(sums).sum())
    if len(sums) <= EXACT_SLIDES:
        totals = sums[:1]  # a pattern and its mirror image weigh the same: keep the first sign
        for value in sums[1:]:
            totals = np.concatenate([totals + value, totals - value])
        return float(np.mean(np.abs(totals) >= least))
    hits = 0
    for rows in _blocks(resamples, len(sums)):
        signs = rng.choice((-1.0, 1.0), size=(rows, len(sums)))
        hits += int(np.count_nonzero(np.abs(signs @ sums) >= least))
    return (1 + hits) / (1 + resamples)
