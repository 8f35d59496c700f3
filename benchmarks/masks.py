"""Filling and tracing of polygons, beside other libraries in the same run; memory of a large mask.

    python benchmarks/masks.py [--rounds N] [--out benchmarks/masks.md]

One thread. Peers are timed in turn, A B A B ...; quoted are medians. They do less: OpenCV and
Pillow round vertices to whole pixels, fill their borders too and know no holes in one call;
OpenCV traces through the centres of pixels, scikit-image between them, and neither puts holes into
polygons.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import shapely
import skimage.measure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely import Polygon

from histoclick import machine
from histoclick.annotations import Annotation, Canvas, Document, raster
from histoclick.geometry import Rect
from histoclick.masks import Painter, rasterise, simplify, trace

SIDE = 40_000
VERTICES = 1_000_000


class Row(NamedTuple):
    """What was done to how many vertices, in which time, and by whom else."""

    what: str
    vertices: int
    ours: float
    baseline: str
    theirs: float


def compare(
    what: str,
    vertices: int,
    ours: Callable[[], object],
    baseline: str,
    theirs: Callable[[], object],
    rounds: int,
) -> Row:
    """Time both in turn. Seconds."""
    pairs = []
    for _ in range(rounds + 1):  # the first round warms up
        pair = []
        for call in (ours, theirs):
            start = time.perf_counter()
            call()
            pair.append(time.perf_counter() - start)
        pairs.append(pair)
    mine, other = zip(*pairs[1:], strict=True)
    return Row(what, vertices, statistics.median(mine), baseline, statistics.median(other))


def tumour(side: float, vertices: int, seed: int = 0) -> Polygon:
    """A ragged outline with lobes."""
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    radius = 0.35 + 0.03 * np.sin(50 * angle) + 0.02 * np.sin(7 * angle)
    radius += np.random.default_rng(seed).normal(0, 0.2 / vertices, vertices)
    return Polygon(side * np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], 1))


def slide(side: int) -> list[Polygon]:
    """One tumour under 20,000 nuclei."""
    random = np.random.default_rng(1)
    centres = shapely.points(random.uniform(0, side, (20_000, 2)))
    return [tumour(side, 200_000), *shapely.buffer(centres, random.uniform(5, 40, 20_000))]


def speckled(side: int) -> NDArray[np.bool_]:
    """Blobs with holes of all sizes."""
    noise = np.random.default_rng(2).normal(size=(side, side)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5) > 0)


def small_rows(rounds: int) -> list[Row]:
    side = 4000
    shape, rect0 = tumour(SIDE, VERTICES), Rect(0, 0, SIDE, SIDE)
    xy = np.round(shapely.get_coordinates(shape) * (side / SIDE) - 0.5).astype(np.int32)
    flat = [tuple(point) for point in xy.tolist()]

    def pillow() -> None:
        ImageDraw.Draw(Image.new("1", (side, side))).polygon(flat, fill=1)

    def fill_poly() -> None:
        cv2.fillPoly(np.zeros((side, side), np.uint8), [xy], 1)

    painter, window = Painter([shape], [1]), Rect(5000, 17_000, 400, 400)
    mask = speckled(side)
    bytes_ = mask.view(np.uint8)
    corners = shapely.get_num_coordinates(trace([mask])[1]).sum().item()
    return [
        compare(
            "fill: one polygon onto 4000x4000 px", VERTICES,
            lambda: rasterise(shape, rect0, side, side), "Pillow, ImageDraw.polygon", pillow,
            rounds,
        ),
        compare(
            "fill: one polygon onto 4000x4000 px", VERTICES,
            lambda: rasterise(shape, rect0, side, side), "OpenCV, fillPoly", fill_poly, rounds,
        ),
        compare(
            "fill: a 400x400 px patch of it, edges sorted before", VERTICES,
            lambda: painter.band(window, 400, 400), "without sorting before",
            lambda: rasterise(shape, window, 400, 400), rounds,
        ),
        compare(
            "trace: 4000x4000 px of blobs", corners, lambda: trace([mask]),
            "OpenCV, findContours",
            lambda: cv2.findContours(bytes_, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE), rounds,
        ),
        compare(
            "trace: 4000x4000 px of blobs", corners, lambda: trace([mask]),
            "scikit-image, find_contours", lambda: skimage.measure.find_contours(bytes_, 0.5),
            rounds,
        ),
        compare(
            "simplify by 1 px, checked", VERTICES, lambda: simplify(shape, 1),
            "shapely, simplify, not checked", lambda: shapely.simplify(shape, 1), rounds,
        ),
    ]  # fmt: skip


def bands(shapes: list[Polygon]) -> Iterator[NDArray[np.uint16]]:
    painter = Painter(shapes, [1] + [2] * (len(shapes) - 1))
    for y in range(0, SIDE, 256):
        rows = min(256, SIDE - y)
        yield painter.band(Rect(0, y, SIDE, rows), SIDE, rows)


def paint() -> int:
    for _ in bands(slide(SIDE)):
        pass
    return 0


def paint_and_trace() -> int:
    pieces = trace(bands(slide(SIDE)))
    return int(sum(shapely.get_num_coordinates(found).sum() for found in pieces.values()))


def write_and_read() -> int:
    document = Document(
        tuple(
            Annotation(shape, "nucleus" if i else "tumour") for i, shape in enumerate(slide(SIDE))
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.tif"
        raster.write(document, path, Canvas(SIDE, SIDE))
        found = raster.read(path, None)
    return sum(int(shapely.get_num_coordinates(a.shape)) for a in found.annotations)


LARGE = {
    "make the shapes (they are part of all below)": lambda: len(slide(SIDE)),
    "paint in bands": paint,
    "paint in bands and trace": paint_and_trace,
    "write as a pyramidal TIFF and read it again": write_and_read,
}


def large_rows() -> Iterator[str]:
    """Each in a process of its own, for its memory."""
    for name in LARGE:
        call = [sys.executable, __file__, "--large", name]
        seconds, megabytes, vertices = subprocess.check_output(call, text=True).split()
        yield f"| {name} | {int(vertices):,} | {seconds} | {megabytes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("masks.md"))
    parser.add_argument("--large", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.large:
        start = time.perf_counter()
        vertices = LARGE[options.large]()
        status = Path("/proc/self/status").read_text()  # getrusage counts the parent as well
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        print(f"{time.perf_counter() - start:.1f} {peak:.0f} {vertices}")
        return
    facts = machine.describe()
    lines = [
        "# Masks",
        "",
        f"`python benchmarks/masks.py` on {facts['processor']}, {facts['cores']} cores, shared "
        f"with other work (load {os.getloadavg()[0]:.1f} at the start); 1 thread. Medians, "
        "measured in turn. Peers do less: OpenCV and Pillow move vertices to whole pixels and fill "
        "borders too; OpenCV traces through centres of pixels, scikit-image between them, and "
        "neither makes polygons with holes.",
        "",
        "| what | vertices | ours, s | vertices/s | baseline | baseline, s | baseline / ours |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    lines += [
        f"| {row.what} | {row.vertices:,} | {row.ours:.4f} | {row.vertices / row.ours:,.0f} "
        f"| {row.baseline} | {row.theirs:.4f} | {row.theirs / row.ours:.2f} |"
        for row in small_rows(options.rounds)
    ]
    lines += [
        "",
        f"A mask of {SIDE}x{SIDE} px, a tumour of 200,000 vertices under 20,000 nuclei; memory is "
        "the peak of the whole process with its libraries.",
        "",
        "| what | vertices traced | s | peak, MB |",
        "|---|---:|---:|---:|",
        *large_rows(),
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
