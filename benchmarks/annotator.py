"""The annotator's server under load, beside a naive one that encodes at every click.

    histoclick phantom slides --width 6000 --height 6000 --seed 1
    python benchmarks/annotator.py slides/phantom-00001.tif --report benchmarks/annotator.md

Clients are threads that speak HTTP as the page does. Those of the naive server make the same
clicks; it stores nothing, knows no undo and is not asked to encode ahead. Memory is the resident
set of the server's process. Slides are copies with another description, so that each is another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from histoclick.machine import describe
from histoclick.store import Store

MPP = 1.0  # um/px at which everybody works
VIEW = 1400.0  # px of level 0 that a page shows, 350 um
MARK = b"not of a patient"
Point = tuple[float, float]


def naive(port: int, folder: Path, threads: int) -> None:
    """What one writes in an afternoon: read, encode, predict, outline, at every click."""
    import numpy as np
    import torch
    import uvicorn
    from shapely import MultiPolygon, to_geojson
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from histoclick.masks import trace
    from histoclick.models import registry
    from histoclick.session import Grid
    from histoclick.slides import open_slide
    from histoclick.types import Prompt

    if threads:
        torch.set_num_threads(threads)
    segmenter = registry.load()
    slides = {path.name: open_slide(path) for path in sorted(folder.glob("*.tif"))}
    objects: dict[str, list[Any]] = {}  # of each: window, prompt, prediction

    async def names(_: Request) -> JSONResponse:
        return JSONResponse([{"id": each, "name": each} for each in slides])

    async def click(request: Request) -> JSONResponse:
        body = await request.json()
        slide = slides[request.path_params["slide"]]
        grid = Grid.of(slide, body["mpp"])
        window = grid.nearest(body["x"] / grid.scale_x, body["y"] / grid.scale_y, 448)
        key = body["object"] or str(len(objects) + 1)
        window, prompt, previous = objects.get(key, [window, Prompt(), None])
        prompt = prompt.add(grid.click(window, body["x"], body["y"], body["positive"]))
        image = slide.read(grid.rect0(window), window.width, window.height)
        prediction = segmenter.predict(segmenter.encode(image), prompt, previous)
        objects[key] = [window, prompt, prediction]
        parts = trace([np.ascontiguousarray(prediction.mask)]).get(1, [])
        return JSONResponse(
            {"object": key, "geometry": json.loads(to_geojson(MultiPolygon(parts)))}
        )

    paths = [Route("/api/slides", names), Route("/api/info", names)]
    app = Starlette(routes=[*paths, Route("/click/{slide}", click, methods=["POST"])])
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


@dataclass
class Server:
    """A process with a server in it. ``slides``: ids by name."""

    url: str
    pid: int
    ours: bool
    store: Path
    slides: dict[str, str] = field(default_factory=dict)

    @property
    def memory_mb(self) -> float:
        """Resident set now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextlib.contextmanager
def running(folder: Path, *, ours: bool, threads: int, store: Path) -> Iterator[Server]:
    """A server that answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    here = [sys.executable, __file__, str(folder), "--naive", port, "--threads", str(threads)]
    real = [sys.executable, "-m", "histoclick", "annotate", str(folder), "--store", str(store)]
    real += ["--port", port, "--no-browser", "--threads", str(threads)]
    cache = {"XDG_CACHE_HOME": f"{store}.cache"}
    process = subprocess.Popen(
        real if ours else here, env=os.environ | cache, stdout=subprocess.DEVNULL
    )
    try:
        server = Server(f"http://127.0.0.1:{port}/", process.pid, ours, store)
        while True:
            with contextlib.suppress(httpx2.TransportError):
                found = httpx2.get(f"{server.url}api/slides", timeout=120).json()
                server.slides = {each["name"]: each["id"] for each in found}
                break
            if process.poll() is not None:
                raise SystemExit("the server ended")
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


@dataclass
class Person:
    """Somebody at a page. ``acknowledged``: ids of events; ``seconds``: of clicks; ``faults``."""

    server: Server
    slide: str
    random: random.Random
    tab: str = field(default_factory=lambda: str(uuid.uuid4()))
    seq: int = 0
    acknowledged: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = httpx2.Client(
            base_url=self.server.url, timeout=120, headers={"X-Client": self.tab}
        )

    def work(self, until: float, size: int, think: float = 2.0) -> None:
        """Objects of one to six clicks, now and then an undo, with time to think between."""
        while time.monotonic() < until:
            middle = self.random.uniform(0.2, 0.8) * size, self.random.uniform(0.2, 0.8) * size
            self.look(middle)
            time.sleep(self.random.uniform(0, think))
            made = None
            for number in range(self.random.randint(1, 6)):
                place = tuple(each + self.random.uniform(-400, 400) for each in middle)
                made = self.click(made, place, number == 0 or self.random.random() < 0.6)
                if time.monotonic() >= until or made is None:
                    break
                time.sleep(self.random.uniform(0, think))
                if number and self.random.random() < 0.15:
                    self.undo()
            self.poll()

    def click(self, made: Any, place: Sequence[float], positive: bool) -> Any:
        """Returns what names the object; ``None`` when it went wrong."""
        body = {
            "kind": "click", "id": str(uuid.uuid4()), "object": made, "x": place[0], "y": place[1],
            "positive": positive, "mpp": MPP, "label": "Tumor",
        }  # fmt: skip
        begin = time.perf_counter()
        answer = self.post(f"api/slides/{self.slide}/events?after={self.seq}", body)
        self.seconds.append(time.perf_counter() - begin)
        return answer and answer["object"]

    def undo(self) -> None:
        """Take the last click back."""
        if self.server.ours:
            body = {"kind": "undo", "id": str(uuid.uuid4())}
            self.post(f"api/slides/{self.slide}/events?after={self.seq}", body)

    def look(self, middle: Point) -> bool:
        """As the page does when the view rests; whether all of the view is encoded."""
        if not self.server.ours:
            return True
        corner = {"x": max(0, middle[0] - VIEW / 2), "y": max(0, middle[1] - VIEW / 2)}
        view = corner | {"width": VIEW, "height": VIEW, "mpp": MPP}
        reply = self.client.post(f"api/slides/{self.slide}/ahead", json=view)
        if reply.status_code != 202:
            self.faults.append(reply.text)
        return bool(reply.json().get("ready"))

    def poll(self) -> None:
        """Ask what others did, as the page does every two seconds."""
        if self.server.ours:
            reply = self.client.get(f"api/slides/{self.slide}/annotations?after={self.seq}")
            if reply.status_code == 200:
                self.seq = reply.json()["seq"]
            else:
                self.faults.append(reply.text)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; ``None`` when it went wrong, which is noted."""
        try:
            path = path if self.server.ours else f"click/{self.slide}"
            reply = self.client.post(path, json=body)
        except httpx2.HTTPError as error:
            self.faults.append(repr(error))
            return None
        if reply.status_code != 200:
            self.faults.append(f"{reply.status_code} {reply.text[:200]}")
            return None
        answer: dict[str, Any] = reply.json()
        if self.server.ours:
            self.seq = answer["seq"]
            self.acknowledged.append(body["id"])
        return answer


def crowd(
    server: Server, count: int, seconds: float, size: int
) -> tuple[list[Person], list[float]]:
    """People who click at once, and memory while they do, MB, every five seconds."""
    ids = list(server.slides.values())
    people = [Person(server, ids[i % len(ids)], random.Random(i)) for i in range(count)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=each.work, args=(until, size)) for each in people]
    memory = [server.memory_mb]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        time.sleep(min(5.0, max(0.1, until - time.monotonic())))
        memory.append(server.memory_mb)
    for thread in threads:
        thread.join()
    return people, memory


def lost(people: Sequence[Person], store: Path) -> int:
    """Acknowledged events that are not in the store, and events there that nobody made."""
    with Store.open(str(store)) as kept:
        there = [row["id"] for slide in kept.slides() for row in kept.events(slide["key"])]
    mine = [id_ for each in people for id_ in each.acknowledged]
    return len(set(mine) ^ set(there)) + len(there) - len(set(there))


def alone(server: Server, size: int, objects: int) -> dict[str, list[float]]:
    """Seconds of the clicks of one person, by what was ready before.

    Every fourth object lies on another slide, where nobody has looked yet.
    """
    chance, (near, *far) = random.Random(3), server.slides.values()
    person, stranger = Person(server, near, chance), Person(server, far[0], chance)
    kinds: dict[str, list[float]] = {"first": [], "next": [], "not encoded": []}
    for i in range(objects):
        if i % 4 == 3:
            row, column = divmod(i // 4 // len(far), 4)
            stranger.slide = far[i // 4 % len(far)]
            stranger.click(None, [size * (0.2 + 0.2 * each) for each in (column, row)], True)
            kinds["not encoded"].append(stranger.seconds[-1])
            continue
        middle = chance.uniform(0.2, 0.8) * size, chance.uniform(0.2, 0.8) * size
        while not person.look(middle):
            time.sleep(0.1)
        made = None
        for number in range(4):
            place = tuple(each + chance.uniform(-150, 150) for each in middle)
            made = person.click(made, place, number == 0 or chance.random() < 0.6)
            kinds["next" if number else "first"].append(person.seconds[-1])
            time.sleep(0.2)
        person.poll()
    if person.faults or stranger.faults:
        raise SystemExit(f"faults: {(person.faults + stranger.faults)[:3]}")
    return kinds


def endure(server: Server, clicks: int, size: int) -> list[tuple[int, float]]:
    """Memory along clicks without a pause on one slide, MB; its windows are encoded before."""
    person = Person(server, next(iter(server.slides.values())), random.Random(5))
    middle = size / 2, size / 2
    while not person.look(middle):
        time.sleep(0.1)
    memory, made = [], None
    for number in range(1, clicks + 1):
        made = made if number % 8 else None
        place = [each + person.random.uniform(-VIEW / 2, VIEW / 2) for each in middle]
        made = person.click(made, place, made is None or person.random.random() < 0.6)
        if number % 20 == 0:
            person.undo()
            made = None
        if number % max(1, clicks // 10) == 0:
            memory.append((number, server.memory_mb))
    if person.faults:
        raise SystemExit(f"faults: {person.faults[:3]}")
    return memory


def browse(server: Server, size: int) -> list[tuple[int, float]]:
    """Memory along slides that are opened, looked at, clicked on and left, MB."""
    memory = []
    for number, slide in enumerate(server.slides.values(), 1):
        person = Person(server, slide, random.Random(number))
        for path in ("", "/thumbnail.jpeg", "/annotations", "/slide_files/10/0_0.jpeg"):
            person.client.get(f"api/slides/{slide}{path}").raise_for_status()
        made = person.click(None, (size / 2, size / 2), True)
        person.click(made, (size / 2 + 300, size / 2), False)
        person.client.close()
        if person.faults:
            raise SystemExit(f"faults: {person.faults[:3]}")
        if number % max(1, len(server.slides) // 10) == 0:
            memory.append((number, server.memory_mb))
    return memory


def copies(source: Path, folder: Path, count: int) -> Path:
    """Slides with the same pixels that count as others."""
    content = source.read_bytes()
    if content.count(MARK) != 1:
        raise SystemExit(f"{source} is not a slide of 'histoclick phantom'")
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i:03d}.tif").write_bytes(content.replace(MARK, f"{i:16d}".encode()))
    return folder


def milliseconds(seconds: Sequence[float]) -> str:
    """Median, 95th percentile and largest, for a table."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return " | ".join(f"{1000 * each:.0f}" for each in (cuts[9], cuts[18], max(seconds)))


def measure(options: argparse.Namespace, place: Path) -> str:
    """The whole report."""
    import openslide

    with openslide.OpenSlide(options.slides) as opened:
        size = min(opened.dimensions)
    few = copies(options.slides, place / "few", 5)
    begin = os.getloadavg()[0]
    rows, crowds, memories = [], [], []
    for ours in (True, False):
        name = "`histoclick annotate`" if ours else "naive"
        store = place / f"{name.strip('`').split()[-1]}.sqlite"
        with running(few, ours=ours, threads=options.threads, store=store) as server:
            kinds = alone(server, size, options.objects)
            words = {
                "first": "first click",
                "next": "next clicks",
                "not encoded": "not encoded yet",
            }
            rows += [
                f"| {name}, {words[kind]} | {len(each)} | {milliseconds(each)} |"
                for kind, each in kinds.items()
                if each
            ]
        store = place / f"crowd-{ours}.sqlite"
        with running(few, ours=ours, threads=options.threads, store=store) as server:
            people, memory = crowd(server, options.people, options.seconds, size)
        faults = [fault for each in people for fault in each.faults]
        seconds = [second for each in people for second in each.seconds]
        gone = str(lost(people, store)) if ours else "stores none"
        crowds.append(
            f"| {name} | {len(seconds)} | {len(faults)} | {gone} | {milliseconds(seconds)} "
            f"| {memory[0]:.0f} | {max(memory):.0f} | {memory[-1]:.0f} |"
        )
        print(*rows, *crowds, *faults[:3], sep="\n", flush=True)
    with running(few, ours=True, threads=options.threads, store=place / "long.sqlite") as server:
        memories.append(("clicks", endure(server, options.clicks, size)))
    many = copies(options.slides, place / "many", options.many)
    with running(many, ours=True, threads=options.threads, store=place / "many.sqlite") as server:
        memories.append(("slides", browse(server, size)))
    tables = "\n\n".join(
        f"| {what} | " + " | ".join(str(count) for count, _ in row) + " |\n"
        + "|---|" + "---:|" * len(row) + "\n"
        + "| memory, MB | " + " | ".join(f"{memory:.0f}" for _, memory in row) + " |"
        for what, row in memories
    )  # fmt: skip
    machine = describe()
    return f"""# Annotator

`python benchmarks/annotator.py` on {machine["processor"]}, {machine["cores"]} cores (load \
{begin:.1f} at the start); the built-in model, threads for it: \
{options.threads or "as many as fit"}; the clients run on the same cores. Slides of \
{size}x{size} px, {MPP:g} um/px worked at. The naive server reads, \
encodes and predicts at every click, with the same model, windows and outlines; it stores nothing. \
Times are those that a client sees, HTTP and the outline included.

One person, ms from the click to the answer:

| what | clicks | median | 95 % | longest |
|---|---:|---:|---:|---:|
{chr(10).join(rows)}

{options.people} people on 5 slides for {options.seconds:g} s, who think up to 2 s between clicks, \
ms from the click to the answer:

| server | clicks | errors | lost | median | 95 % | longest | memory before, MB | largest | after |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(crowds)}

Memory of our server along clicks without a pause on one slide, and along slides that are opened, \
clicked on twice and left. At most 1 GiB of embeddings are kept.

{tables}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", type=Path, help="a slide of 'histoclick phantom'")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--objects", type=int, default=40, help="of the one person")
    parser.add_argument("--clicks", type=int, default=2000)
    parser.add_argument("--many", type=int, default=200, help="slides that are opened")
    parser.add_argument("--threads", type=int, default=0, help="of the model; 0: as many as fit")
    parser.add_argument("--naive", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    if options.naive:
        naive(options.naive, options.slides, options.threads)
        return
    with tempfile.TemporaryDirectory() as place:
        text = measure(options, Path(place))
    if options.report:
        options.report.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
