"""Clicks answered in the browser, beside the server's answers: ``python benchmarks/browser.py
FOLDER``.

FOLDER: ``histoclick models export histoclick-tiny FOLDER``. The command serves a phantom slide to a
Chromium; at every click the page answers first and the server after it, so that they do not take
the processor from each other, on one thread each. ``differ`` is the share of the window's pixels in
which both answers are not the same. The lowest times tell most where others use the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import shapely
from playwright.sync_api import Page, Route, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browsing import CHROMIUM, PAGE, WINDOW, Viewer  # noqa: E402
from histoclick.datasets.phantomslides import write_phantom_slides  # noqa: E402
from live import Annotator, annotating  # noqa: E402

SIDE_PX = 3200  # of the slide, 0.25 um each
SCALE = 0.25  # screen px per px of level 0: clicks work at 1 um/px


def area_of(geometry: dict[str, Any]) -> Any:
    """What its rings enclose, by the even-odd rule."""
    parts = geometry["coordinates"]
    rings = parts if geometry["type"] == "Polygon" else [ring for part in parts for ring in part]
    areas = [shapely.make_valid(shapely.Polygon(ring)) for ring in rings]
    return functools.reduce(lambda a, b: a.symmetric_difference(b), areas, shapely.Polygon())


def used(task: Path) -> float:
    """Seconds of processor time of a process or thread of Linux."""
    fields = (task / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def worker_thread() -> Path:
    """The one in which the page answers, of the only browser that has such a thread."""
    for name in Path("/proc").glob("[0-9]*/task/[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if name.read_text().startswith("DedicatedWorker"):
                return name.parent
    raise SystemExit("the page has no worker; is 'Answer clicks here first' on?")


def one_click(
    viewer: Viewer, held: list[Route], server: Path, x: float, y: float, positive: bool
) -> list[float]:
    """Seconds until the page's answer, and until the server's after that; of the processor for
    each of both; and the share of the window in which they differ."""
    worker = None if viewer.now("previewed") is None else worker_thread()
    before = 0.0 if worker is None else used(worker)
    begin = time.perf_counter()
    viewer.page.mouse.click(*viewer.on_page(x, y), button="left" if positive else "right")
    viewer.until("now.previews.length > 0")
    shown = time.perf_counter() - begin
    worked = math.nan if worker is None else used(worker) - before
    preview = viewer.now("previews[0]")
    before, begin = used(server), time.perf_counter()
    for route in held:
        route.continue_()
    held.clear()
    viewer.until("now.previews.length === 0 && now.sending.phase === 'idle'")
    answered, predicted = time.perf_counter() - begin, used(server) - before
    (item,) = (each for each in viewer.objects() if each["id"] == viewer.now("current"))
    ours, theirs = area_of(preview["item"]["geometry"]), area_of(item["geometry"])
    whole = item["window"][2] * item["window"][3]
    differ = ours.symmetric_difference(theirs).area / whole
    return [shown, worked, answered, predicted, differ]


def measure(page: Page, server: Annotator, name: str, objects: int, clicks: int) -> None:
    """Click, and print what that took."""
    viewer = Viewer(page, Path(tempfile.gettempdir()) / "benchmark")
    viewer.open(server.url, name)
    viewer.look_at(SIDE_PX / 2, SIDE_PX / 2, SCALE)
    viewer.until("now.ready")
    begin = time.perf_counter()
    viewer.it("here").check()
    held: list[Route] = []
    page.route("**/events*", lambda route: held.append(route))
    found = []
    draw = random.Random(0)
    for _ in range(objects):
        x0, y0 = (SIDE_PX / 2 + draw.uniform(-500, 500) for _ in range(2))
        for i in range(clicks):
            x, y = x0 + draw.uniform(-250, 250), y0 + draw.uniform(-250, 250)
            one = one_click(viewer, held, Path(f"/proc/{server.process.pid}"), x, y, i % 2 == 0)
            if not found:
                print(f"From the switch to the first answer: {time.perf_counter() - begin:.1f} s")
            found.append(one)
        viewer.press("Enter")
    shown, worked, answered, predicted, differ = zip(*found, strict=True)
    print(
        "| | clicks | until the answer, ms (lowest) | processor, ms | differ, median | most |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    shares = f"{statistics.median(differ):.1e} | {max(differ):.1e}"
    for who, waits, works, said in (
        ("browser", shown, worked[1:], shares),
        ("server", answered, predicted[1:], " | "),
    ):
        wait = f"{1000 * statistics.median(waits):.0f} ({1000 * min(waits):.0f})"
        print(f"| {who} | {len(found)} | {wait} | {1000 * statistics.mean(works):.0f} | {said} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--clicks", type=int, default=6)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for file in sorted((PAGE.parent / "assets").iterdir()):
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB")
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        folder = Path(place)
        (slide,) = write_phantom_slides(folder, seed=1, width=SIDE_PX, height=SIDE_PX)
        options = ("--model", str(arguments.folder.resolve()))
        with annotating([slide], folder / "store.sqlite", *options) as server:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport=WINDOW)
            page.set_default_timeout(120_000)
            measure(page, server, slide.name, arguments.objects, arguments.clicks)
            browser.close()


if __name__ == "__main__":
    main()
