"""Patch preparation beside a bare loop that only reads the same regions with OpenSlide.

    histoclick phantom slides --width 30000 --height 30000 --seed 1
    python benchmarks/prepare.py slides --report benchmarks/prepare.md

The bare loop opens the slide once and calls ``read_region`` on the level that fits, converts to RGB
and throws the pixels away. ``prepare`` reads annotations, finds the tissue and the patches, reads
them, and writes images, masks and manifest. Both are run in turn; memory is the peak of the process
and of its largest child. Every patch with object in it is taken here (1 % to 100 %), so that there
are enough of them to time, of several links to the slide; the start of the processes is included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openslide
import pandas as pd

from histoclick.machine import describe


def bare(slide: Path, regions: list[tuple[int, int]], mpp: float, size: int) -> float:
    """Seconds to read all regions."""
    with openslide.OpenSlide(slide) as opened:
        scale = mpp / float(opened.properties["openslide.mpp-x"])
        level = opened.get_best_level_for_downsample(scale * 1.001)
        side = round(size * scale / opened.level_downsamples[level])
        begin = time.perf_counter()
        for region in regions:
            opened.read_region(region, level, (side, side)).convert("RGB")
        return time.perf_counter() - begin


def prepare(slides: Path, out: Path, magnification: float, workers: int) -> tuple[float, float]:
    """Seconds of the whole command but the start of Python, and peak memory in MB."""
    script = (
        "import sys, time, resource; from histoclick import cli; b = time.perf_counter()\n"
        "try:\n    cli.main()\n"
        "except SystemExit as end: code = end.code\n"
        "peak = sum(resource.getrusage(w).ru_maxrss for w in "
        "(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
        "print('SECONDS', time.perf_counter() - b, peak / 1024); sys.exit(code)"
    )
    words = ["prepare", "camelyon16", "--slides", slides, "--annotations", slides, "--out", out]
    words += ["--magnification", magnification, "--object-fraction", 0.01, 1, "--workers", workers]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds, peak = done.stdout.rpartition("SECONDS")[2].split()
    return float(seconds), float(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", type=Path, help="folder of 'histoclick phantom'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=6, help="links to each slide, as if others")
    parser.add_argument("--magnifications", type=float, nargs="+", default=(20, 40))
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    place = tempfile.TemporaryDirectory()
    slides = Path(place.name)
    for path in options.slides.glob("*.tif"):
        outlines = path.with_suffix(".xml")
        for copy in range(options.copies if outlines.exists() else 0):
            (slides / f"{path.stem}-{copy}.tif").symlink_to(path.resolve())
            (slides / f"{path.stem}-{copy}.xml").symlink_to(outlines.resolve())
    lines = [
        "| magnification | patches | bare loop, patches/s | workers | prepare, patches/s | ratio "
        "| peak memory, MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for magnification in options.magnifications:
        for workers in (1, 2):
            pairs, peaks, count = [], [], 0
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory() as made:
                    out = Path(made) / "set"
                    seconds, peak = prepare(slides, out, magnification, workers)
                    table = pd.read_parquet(out / "patches.parquet")
                    shutil.rmtree(out)
                by_slide = {
                    name: list(zip(rows["x0"], rows["y0"], strict=True))
                    for name, rows in table.groupby("slide_file")
                }
                plain = sum(
                    bare(slides / name, regions, 10 / magnification, 400)
                    for name, regions in by_slide.items()
                )
                count = len(table)
                pairs.append((plain, seconds))
                peaks.append(peak)
            plain, seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            lines.append(
                f"| x{magnification:g} | {count} | {count / plain:.1f} "
                f"| {workers} | {count / seconds:.1f} | {ratio:.2f} | {max(peaks):.0f} |"
            )
            print(lines[-1], flush=True)
    machine = describe()
    text = (
        "# Patch preparation\n\nA bare loop that only reads the same regions with OpenSlide, and "
        f"`histoclick prepare`, in turn, {options.rounds} rounds, medians: see "
        "[prepare.py](prepare.py).\n\n"
        f"{machine.get('processor', '')}, {os.cpu_count()} processors\n\n"
    ) + "\n".join(lines)
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
