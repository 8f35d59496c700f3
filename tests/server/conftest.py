from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from served import Server, made_slide, serving


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two slides, one of them in a folder in it, and one that is none."""
    folder = tmp_path_factory.mktemp("slides")
    made_slide(folder / "a.tif")
    made_slide(folder / "case 2" / "b.tif", 300, 500, seed=1)
    (folder / "broken.svs").write_bytes(b"no slide at all")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture
def server(slides: Path, tmp_path: Path) -> Iterator[Server]:
    with serving([slides], tmp_path / "store.sqlite") as made:
        yield made


@pytest.fixture(scope="session")
def standing(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for tests that change nothing."""
    with serving([slides], tmp_path_factory.mktemp("store") / "store.sqlite") as made:
        yield made
