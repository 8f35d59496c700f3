from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from browsing import CHROMIUM, PAGE, WINDOW, Viewer
from histoclick.datasets.phantomslides import write_phantom_slides
from live import Annotator, annotating

PHANTOM_PX = 3200  # the smallest there is, 0.25 um each


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn slide with a tumour in its middle, and its outlines beside it."""
    folder = tmp_path_factory.mktemp("phantom")
    (path,) = write_phantom_slides(folder, seed=1, width=PHANTOM_PX, height=PHANTOM_PX)
    return path


@pytest.fixture(scope="session")
def built() -> None:
    """There is a page, and a browser for it."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    if not PAGE.exists():
        pytest.skip(f"{PAGE} is not built; `pip install .` builds it")


@pytest.fixture(scope="session")
def server(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Annotator]:
    """The command with the built-in model, for all tests of the page; it serves ``slides``."""
    folder = tmp_path_factory.mktemp("annotator")
    (folder / "slides").mkdir()
    with annotating([folder / "slides"], folder / "store.sqlite") as server:
        yield server


@pytest.fixture(scope="session")
def slides(server: Annotator) -> Path:
    """The folder that is served; what is put there appears on the page."""
    return server.folders[0]


@pytest.fixture
def slide(phantom: Path, slides: Path, request: pytest.FixtureRequest) -> str:
    """The name of a slide that this test has for itself: the same pixels, another content."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    mark = f"{len(list(slides.iterdir())):16d}".encode()
    content = phantom.read_bytes()
    assert content.count(b"not of a patient") == 1
    part = slides / f".{name}"
    part.write_bytes(content.replace(b"not of a patient", mark))
    part.rename(slides / f"{name}.tif")
    return f"{name}.tif"


@pytest.fixture(scope="module")
def chromium(built: None) -> Iterator[Browser]:
    """One for each file: while Playwright runs, nobody else can have an event loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(
    chromium: Browser, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Viewer]]:
    """Opens another browser window, of somebody else; options are Playwright's.

    At the end nothing may have gone wrong in any of them.
    """
    kept = Path(os.environ.get("HISTOCLICK_SCREENSHOTS", tmp_path / "screenshots"))
    kept.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
    contexts, faults = [], list[str]()

    def opened(**options: Any) -> Viewer:
        context = chromium.new_context(**{"viewport": WINDOW, "accept_downloads": True} | options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        return Viewer(page, kept / name)

    yield opened
    for context in contexts:
        for i, page in enumerate(context.pages):
            try:
                page.screenshot(path=kept / f"{name}-last-{contexts.index(context)}{i}.png")
            except Error:  # it is closed
                continue
        context.close()
    assert [fault for fault in faults if "net::ERR_" not in fault] == []  # those are wanted


@pytest.fixture
def viewer(tab: Callable[..., Viewer], server: Annotator, slide: str) -> Viewer:
    """The page with this test's slide."""
    viewer = tab()
    viewer.open(server.url, slide)
    return viewer


@pytest.fixture
def scan(shared: Path, slides: Path) -> str:
    """The name of a real slide that is served."""
    source = shared / "data" / "slides" / "CMU-1-Small-Region.svs"
    if not (slides / source.name).exists():
        shutil.copy(source, slides / ".scan")
        (slides / ".scan").rename(slides / source.name)
    return source.name
