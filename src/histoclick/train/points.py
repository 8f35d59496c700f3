"""Where users click while a network learns, as in RITM (Sofiiuk et al. 2022).

A user begins with several points at once: in the object and around it. Then come clicks that answer
a mask. Points are tensors as in ``models.clickmaps``; their third number is the place of a click
after the first ones (1, 2, ...), 0 for a first click in the middle, ``UNORDERED`` for the other
first ones. Every user has a random generator of their own, so that no user depends on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.clicks import inner_distance_squared
from histoclick.models.clickmaps import PADDING
from histoclick.types import Click, Mask

UNORDERED = 100.0
MOST = 24  # points of each sign that the published trainings begin with at most
LEAST_PX = 10  # pixels; an object that erosion leaves no more of is not eroded

Points = NDArray[np.float32]  # (2n, 3)
Rngs = Sequence[np.random.Generator]


@dataclass(frozen=True)
class FirstClicks:
    """How a user begins. The defaults are RITM's, which SimpleClick shares.

    ``decay``: how much less likely each further point is than the one before it. ``merge``: chance
    that several objects are wanted together, ``merged`` at most. ``centre``: the first click in an
    object is made in its middle (FocalClick). ``erode``: chance that positive points keep
    ``margin_px`` away from the outline. ``negatives``: chances that a negative point falls anywhere
    in the background, in another object, or near the outline, which is up to ``reach`` times the
    root of the object's area.
    """

    decay: float = 0.8
    merge: float = 0.15
    merged: int = 2
    centre: bool = False
    erode: float = 0.9
    margin_px: int = 3
    negatives: tuple[float, float, float] = (0.1, 0.4, 0.5)
    reach: float = 0.1


RITM = FirstClicks()
FOCALCLICK = FirstClicks(centre=True)


@dataclass(frozen=True)
class Regions:
    """Where first clicks may fall. All masks are (H, W) bool.

    ``target``: what the user wants. ``inside``: a mask per object, for positive points.
    ``outside``: background, other objects, border, for negative ones.
    """

    target: Mask
    inside: tuple[Mask, ...]
    outside: tuple[Mask, Mask, Mask]


def first_points(
    targets: NDArray[np.bool_], rngs: Rngs, most: int = MOST, rule: FirstClicks = RITM
) -> Tensor:
    """The points (B, 2n, 3) that B users begin with, each wanting all of one target.

    ``targets``: (B, H, W) bool. ``most``: points of each sign that a user makes at most, n or more.
    At least one is positive, unless the target is empty.
    """
    users = zip(targets, rngs, strict=True)
    begun = np.stack([scatter(choose([mask], rng, rule), rng, most, rule) for mask, rng in users])
    halves = torch.from_numpy(begun).chunk(2, 1)
    count = max(1, *(int((half[:, :, 0] >= 0).sum(1).max()) for half in halves))
    return torch.cat([half[:, :count] for half in halves], 1)


def choose(objects: Sequence[Mask], rng: np.random.Generator, rule: FirstClicks = RITM) -> Regions:
    """What a user wants of the ``objects`` (one or more (H, W) masks, empty ones are none), and
    where the first clicks may fall."""
    present = [each for each in objects if each.any()]
    if not present:
        nothing, everything = np.zeros_like(objects[0]), np.ones_like(objects[0])
        return Regions(nothing, (), (everything, everything, everything))
    count = 1
    if len(present) > 1 and rng.random() < rule.merge:
        count = int(rng.integers(2, min(len(present), rule.merged) + 1))
    wanted = [present[i] for i in rng.choice(len(present), count, replace=False)]
    inside = tuple(_shrunk(each, rng, rule) for each in wanted)
    target = np.logical_or.reduce(wanted)
    others = ~target if count == len(present) else np.logical_or.reduce(present) & ~target
    return Regions(target, inside, (~target, others, border(target, rule.reach)))


def scatter(
    regions: Regions, rng: np.random.Generator, most: int = MOST, rule: FirstClicks = RITM
) -> Points:
    """One user's first points (2 * ``most``, 3): positive ones first, both filled up with -1."""
    objects = regions.inside[:most]
    inside = [_inside(mask, rng, most, rule) for mask in objects]
    positive = inside[0] if len(inside) == 1 else [points[0] for points in inside]
    if len(inside) > 1:  # one each, and then anywhere in all of them
        even = [1 / len(objects)] * len(objects)
        further = _anywhere(objects, even, rng, most, rule)
        room = most - len(positive)
        if len(further) > room:
            further = [further[i] for i in rng.choice(len(further), room, replace=False)]
        positive += further
    negative = _anywhere(regions.outside, rule.negatives, rng, most, rule)
    points = np.full((2 * most, 3), PADDING, np.float32)
    for start, half in ((0, positive), (most, negative)):
        if half:
            points[start : start + len(half)] = half
    return points


def next_points(
    points: Tensor, targets: NDArray[np.bool_], predicted: NDArray[np.bool_], rngs: Rngs
) -> Tensor:
    """``points`` (B, 2n, 3) and one more click of every user whose mask is still wrong:
    (B, 2n + 2, 3). The published code has no more room for it than n, and so may lose others.

    ``targets``, ``predicted``: (B, H, W) bool.
    """
    order = points[:, :, 2]
    place = 1 + max(0.0, float(order.masked_fill(order == UNORDERED, 0).max()))
    latest = torch.full((len(points), 2, 3), PADDING)
    for row, target, mask, rng in zip(latest, targets, predicted, rngs, strict=True):
        click = answer(target, mask, rng)
        if click is not None:
            row[0 if click.positive else 1] = torch.tensor([click.y, click.x, place])
    positive, negative = points.chunk(2, 1)
    latest = latest.to(points)
    return torch.cat([positive, latest[:, :1], negative, latest[:, 1:]], 1)


def clicks_of(points: Tensor, scale: float) -> Tensor:
    """(B, 2n, 3) of x, y, sign, oldest first, padding zero, as families with prompt maps take them;
    px are ``scale`` times finer than those of ``points`` (B, 2n, 3)."""
    half = points.shape[1] // 2
    sign = torch.ones(points.shape[:2], device=points.device)
    sign[:, half:] = -1
    absent = points[:, :, :2].amax(2) < 0
    xy = (points[:, :, [1, 0]] + 0.5) * scale - 0.5
    clicks = torch.cat([xy, sign[:, :, None]], 2).masked_fill(absent[:, :, None], 0.0)
    place = points[:, :, 2]
    order = place.masked_fill(place == UNORDERED, 0).argsort(dim=1, stable=True)
    return clicks.take_along_dim(order[:, :, None], 1)


def answer(target: Mask, predicted: Mask, rng: np.random.Generator) -> Click | None:
    """A click on the deeper error, none if nothing is wrong: evenly from its inner half."""
    inner, positive = inner_half(target, predicted)
    candidates = np.flatnonzero(inner)
    if not len(candidates):
        return None
    y, x = divmod(int(candidates[rng.integers(len(candidates))]), inner.shape[1])
    return Click(x, y, positive)


def inner_half(target: Mask, predicted: Mask) -> tuple[Mask, bool]:
    """The pixels of the deeper error that are more than half as deep as its deepest, (H, W) bool,
    and whether it is missed object. Depth is OpenCV's approximation with a 5x5 mask, as in RITM.
    """
    missed, false = depth(target & ~predicted), depth(predicted & ~target)
    positive = bool(missed.max() > false.max())
    deep = missed if positive else false
    inner: Mask = deep > deep.max() / 2
    return inner, positive


def depth(region: Mask) -> NDArray[np.float32]:
    """About how far inside each pixel is, in px: (H, W) float32, 0 outside; beyond the image is
    outside."""
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1].astype(
        np.float32
    )


def border(target: Mask, reach: float) -> Mask:
    """The background up to ``reach`` times the root of the target's area away from it, in px of
    rows or columns, whichever is more."""
    side = 2 * int(np.ceil(reach * np.sqrt(target.sum()))) + 1
    grown = cv2.dilate(target.astype(np.uint8), np.ones((side, side), np.uint8))
    return np.asarray(grown > 0) & ~target


def middle(region: Mask, share: float = 1.7) -> Mask:
    """The pixels more than ``1 / share`` times as deep in ``region`` as its deepest."""
    squared = inner_distance_squared(region)
    deep: Mask = squared * share**2 > squared.max()
    return deep


def odds(count: int, decay: float) -> NDArray[np.float64]:
    """Chances (count,) of 0, 1, ..., each ``decay`` times that of the one before."""
    weights = decay ** np.arange(count)
    return np.asarray(weights / weights.sum())


def _shrunk(region: Mask, rng: np.random.Generator, rule: FirstClicks) -> Mask:
    """Mostly, the region without its margin."""
    if rng.random() > rule.erode:
        return region
    side = 2 * rule.margin_px + 1
    eroded = cv2.erode(region.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    return np.asarray(eroded) if eroded.sum() > LEAST_PX else region


def _inside(region: Mask, rng: np.random.Generator, most: int, rule: FirstClicks) -> list[Points]:
    """1 to ``most`` points in a region that is not empty."""
    count = 1 + int(rng.choice(most, p=odds(most, rule.decay)))
    pixels = np.flatnonzero(region)
    if not rule.centre:
        return [_drawn(pixels, region, rng) for _ in range(count)]
    first = _drawn(np.flatnonzero(middle(region)), region, rng)
    first[2] = 0
    return [first, *(_drawn(pixels, region, rng) for _ in range(count - 1))]


def _anywhere(
    regions: Sequence[Mask],
    chances: Sequence[float],
    rng: np.random.Generator,
    most: int,
    rule: FirstClicks,
) -> list[Points]:
    """0 to ``most`` points, each in a region drawn by its chance; none where that is empty."""
    count = int(rng.choice(most + 1, p=odds(most + 1, rule.decay)))
    pixels = [np.flatnonzero(region) for region in regions]
    drawn = []
    for _ in range(count):
        which = int(rng.choice(len(regions), p=chances))
        if len(pixels[which]):
            drawn.append(_drawn(pixels[which], regions[which], rng))
    return drawn


def _drawn(pixels: NDArray[np.intp], region: Mask, rng: np.random.Generator) -> Points:
    """One of the pixels, counted row by row, as a point (3,)."""
    y, x = divmod(int(pixels[rng.integers(len(pixels))]), region.shape[1])
    return np.array([y, x, UNORDERED], np.float32)
