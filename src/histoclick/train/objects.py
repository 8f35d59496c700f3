"""What a training user may want to outline in a crop.

A network that only ever sees "all tumour in this patch" becomes an automatic tumour segmenter that
ignores clicks and fails on the next organ. So most targets here are something else: one component,
two of them, the background, or a *pseudo-object*, a region that only its colour sets apart.
"""

from __future__ import annotations

import cv2
import numpy as np

from histoclick.types import RGB8, Labels, Mask

LEAST, MOST = 0.012, 0.97  # fraction of the crop a target may cover


def components(mask: Mask, least: float = LEAST) -> list[Mask]:
    """Connected components that cover at least ``least`` of the crop."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= least * mask.size]
    return [labels == i for i in large]


def pseudo_object(image: RGB8, rng: np.random.Generator) -> Mask:
    """A region of similar colour: one k-means cluster of the blurred crop, or one part of it.

    ``image``: (S, S, 3) uint8, S a multiple of 4. Works at half resolution.
    """
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    sigma = float(np.exp(rng.uniform(np.log(0.6), np.log(5.0))))
    lab = cv2.cvtColor(cv2.GaussianBlur(half, (0, 0), sigma), cv2.COLOR_RGB2LAB)
    lab = lab.astype(np.float32)
    few = np.ascontiguousarray(lab[::2, ::2].reshape(-1, 3))
    cv2.setRNGSeed(int(rng.integers(2**31)))
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 8, 0.0)
    clusters = int(rng.integers(2, 6))
    _, _, centres = cv2.kmeans(few, clusters, None, stop, 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    likeness = lab @ centres.T - 0.5 * np.square(centres).sum(1)
    cluster = likeness.argmax(2) == rng.integers(clusters)
    smooth = cv2.resize(cluster.astype(np.float32), image.shape[:2], interpolation=cv2.INTER_LINEAR)
    return _tidy(smooth > 0.5, rng)


def _tidy(cluster: Mask, rng: np.random.Generator) -> Mask:
    """Smooth the outline; usually keep one part only; sometimes fill its holes.

    A third stays lace, all over the crop or in a part of it: that is how tumour among stroma and
    epithelium around lumina are outlined.
    """
    lace = rng.random() < 0.35
    side = 3 if lace else 2 * int(rng.integers(1, 5)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    smooth = cv2.morphologyEx(cluster.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    smooth = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, kernel)
    region = smooth > 0
    if lace:
        return region & blob(len(region), rng) if rng.random() < 0.5 else region
    parts = components(region)
    if parts and rng.random() < 0.7:
        region = parts[int(rng.integers(len(parts)))]
    if rng.random() < 0.5:
        region = fill_holes(region)
    return region


def fill_holes(mask: Mask) -> Mask:
    """The mask with everything it encloses."""
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outline, -1, 1, cv2.FILLED) > 0


def blob(size: int, rng: np.random.Generator) -> Mask:
    """A random smooth region: thresholded low-frequency noise, one part. (size, size) bool."""
    cells = int(rng.integers(3, 9))
    noise = rng.standard_normal((cells, cells)).astype(np.float32)
    noise = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    parts = components(noise > np.quantile(noise, rng.uniform(0.5, 0.85)))
    return parts[int(rng.integers(len(parts)))] if parts else np.ones((size, size), bool)


def paste(image: RGB8, other: RGB8, region: Mask) -> RGB8:
    """``image`` with ``other`` inside ``region``, blended over about two pixels."""
    alpha = cv2.GaussianBlur(region.astype(np.float32), (0, 0), 1.0)[..., None]
    return np.asarray(image * (1 - alpha) + other * alpha + 0.5).astype(np.uint8)


def choose(image: RGB8, labels: Labels, rng: np.random.Generator) -> Mask:
    """One target. ``image``: (S, S, 3) uint8; ``labels``: (S, S) uint16, 0 is background.

    Whole object 60 %, one component 15 %, two 5 %, the background 5 %, a pseudo-object 15 %;
    targets that are too small or too large for the crop become pseudo-objects.
    """
    whole = labels > 0
    kind = rng.random()
    target = whole
    if 0.60 <= kind < 0.80:
        # Values of one label image part touching glands from each other.
        parts = [part for value in np.unique(labels[whole]) for part in components(labels == value)]
        if parts:
            picked = rng.permutation(len(parts))[: 1 if kind < 0.75 else 2]
            target = np.any([parts[i] for i in picked], axis=0)
    elif 0.80 <= kind < 0.85:
        target = ~whole
    if kind >= 0.85 or not LEAST < target.mean() < MOST:
        for _ in range(6):
            target = pseudo_object(image, rng)
            if LEAST < target.mean() < MOST:
                return target
        target = blob(len(image), rng)
    return target


def corrupt(target: Mask, rng: np.random.Generator) -> Mask:
    """A plausible wrong mask of ``target``: grown or shrunk, then with a piece lost or added."""
    side = 2 * int(rng.integers(1, 9)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    wrong = change(target.astype(np.uint8), kernel) > 0
    piece = blob(len(target), rng)
    return wrong | piece if rng.random() < 0.5 else wrong & ~piece
