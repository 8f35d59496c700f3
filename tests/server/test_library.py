from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from dicoms import dicom_slide
from histoclick.geometry import Rect
from histoclick.server import library as module
from histoclick.server.folders import plain
from histoclick.server.library import Library, NoSlide
from histoclick.slides import Slide, open_slide
from histoclick.types import HistoclickError
from served import made_slide


@pytest.fixture(autouse=True)
def looks_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0)
    monkeypatch.setattr(module, "SHARE", 0)


def names(library: Library) -> list[tuple[str, str]]:
    return [(entry.folder, entry.name) for entry in library.entries()]


def test_finds_slides_in_files_and_folders(slides: Path, tmp_path: Path) -> None:
    single = made_slide(tmp_path / "elsewhere" / "c.tif", 64, 64, seed=2)
    library = Library([single, slides])
    entries = library.entries()
    assert names(library) == [("", "c.tif"), ("", "a.tif"), ("", "broken.svs"), ("case 2", "b.tif")]
    a = entries[1]
    assert (a.width, a.height, a.mpp, a.problem) == (1300, 900, pytest.approx(0.5), None)
    with open_slide(slides / "a.tif") as slide:
        assert a.key == slide.fingerprint
    assert entries[2].problem is not None
    assert str(slides.parent) not in entries[2].problem  # no more of paths than was given
    assert entries[2].key == ""
    assert len({entry.id for entry in entries}) == 4
    assert [entry.id for entry in Library([slides]).entries()] == [e.id for e in entries[1:]]
    assert library.find("a") == library.find("a.tif") == a
    assert library.find("broken") is None


def test_ids_follow_the_content(tmp_path: Path) -> None:
    first = made_slide(tmp_path / "one" / "a.tif", 64, 64)
    before = Library([first]).entries()[0].id
    moved = first.rename(tmp_path / "moved.tif")
    assert Library([moved]).entries()[0].id == before
    shutil.copy(moved, tmp_path / "copy.tif")
    copy, original = Library([tmp_path]).entries()
    assert copy.id == before
    assert original.problem == "moved.tif: the same slide as copy.tif, where it is shown"
    assert original.id != before


def test_what_changes_on_the_disk_is_seen(tmp_path: Path) -> None:
    library = Library([tmp_path])
    assert names(library) == []
    path = made_slide(tmp_path / "a.tif", 64, 64)
    (first,) = library.entries()
    with library.open(first.id) as slide:
        assert slide.width == 64
    path.unlink()
    made_slide(path, 96, 80, seed=3)
    (second,) = library.entries()
    assert second.id != first.id
    assert second.width == 80
    with pytest.raises(NoSlide), library.open(first.id):
        pass
    path.unlink()
    assert names(library) == []
    with pytest.raises(NoSlide):
        library.entry(second.id)


def test_nothing_outside_is_readable(slides: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    made_slide(root / "inside.tif", 64, 64)
    (root / "link.tif").symlink_to(slides / "a.tif")
    (root / "folder").symlink_to(slides, target_is_directory=True)
    (root / "itself").symlink_to(root, target_is_directory=True)
    (root / "within.tif").symlink_to(root / "inside.tif")
    (root / "nothing.tif").symlink_to(root / "gone.tif")
    library = Library([root])
    problems = {entry.name: entry.problem for entry in library.entries()}
    assert set(problems) == {"inside.tif", "link.tif", "within.tif"}
    assert problems["inside.tif"] is None
    assert "a link out of the folders" in (problems["link.tif"] or "")
    assert "the same slide" in (problems["within.tif"] or "")
    link = next(entry for entry in library.entries() if entry.name == "link.tif")
    with pytest.raises(HistoclickError, match="link out"), library.open(link.id):
        pass


def test_a_file_that_becomes_a_link_is_not_opened(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made_slide(tmp_path / "root" / "a.tif", 64, 64)
    library = Library([tmp_path / "root"])
    (entry,) = library.entries()
    monkeypatch.setattr(library, "look", lambda: None)
    path.unlink()
    path.symlink_to(slides / "a.tif")
    with pytest.raises(HistoclickError, match="leads out"), library.open(entry.id):
        pass


def test_hidden_files_and_parts_of_slides_are_passed_over(tmp_path: Path) -> None:
    made_slide(tmp_path / ".hidden.tif", 64, 64)
    made_slide(tmp_path / ".git" / "a.tif", 64, 64)
    (tmp_path / "x.vms").write_text("")
    (tmp_path / "x_macro.jpg").write_bytes(b"")
    assert names(Library([tmp_path])) == [("", "x.vms")]
    made_slide(tmp_path / ".git" / "a.tif", 64, 64)
    assert names(Library([tmp_path / ".git"])) == [("", "a.tif")]  # it was named


def test_masks_beside_their_slides_are_no_slides(tmp_path: Path) -> None:
    for name in ("case.tif", "case_mask.tif", "other_mask.tif"):
        made_slide(tmp_path / "slides" / name, 64, 64, seed=len(name))
    assert names(Library([tmp_path / "slides"])) == [("", "case.tif"), ("", "other_mask.tif")]


def test_a_folder_of_dicom_files_is_one_slide(tmp_path: Path) -> None:
    (tmp_path / "single").mkdir()
    dicom_slide(tmp_path / "single" / "one.dcm", 48, 32)
    library = Library([tmp_path])
    (entry,) = library.entries()
    assert (entry.folder, entry.name, entry.width) == ("single", "one.dcm", 48)
    shutil.copy(tmp_path / "single" / "one.dcm", tmp_path / "single" / "two.dcm")
    for given, folder in ((tmp_path, ""), (tmp_path / "single", "")):
        (entry,) = Library([given]).entries()
        assert (entry.folder, entry.name) == (folder, "single")


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HistoclickError, match="no such file or folder"):
        Library([tmp_path / "gone"])


def test_open_slides_are_few_and_those_in_use_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        made_slide(tmp_path / f"{number}.tif", 64, 64, seed=number)
    library = Library([tmp_path], open_at_most=2)
    entries = library.entries()
    opened: list[str] = []
    closed: list[str] = []
    close = Slide.close
    monkeypatch.setattr(Slide, "close", lambda self: (closed.append(self.path.name), close(self)))
    monkeypatch.setattr(
        module, "open_slide", lambda p, mpp: (opened.append(p.name), open_slide(p, mpp=mpp))[1]
    )
    with library.open(entries[0].id) as used:
        for entry in entries[1:]:
            with library.open(entry.id):
                pass
        assert "0.tif" not in closed
        assert used.read(Rect(0, 0, 8, 8), 8, 8).shape == (8, 8, 3)
        with library.open(entries[0].id) as again:
            assert again is used
    assert len(opened) == 6
    assert len(closed) == 4
    library.close()
    assert sorted(closed) == sorted(opened)


def test_threads_share_open_slides(tmp_path: Path) -> None:
    for number in range(4):
        made_slide(tmp_path / f"{number}.tif", 64, 64, seed=number)
    library = Library([tmp_path], open_at_most=1)
    entries = library.entries()
    expected = {}
    for entry in entries:
        with open_slide(entry.path) as slide:
            expected[entry.id] = slide.thumbnail(64)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 4, 60):
            entry = entries[index]
            with library.open(entry.id) as slide:
                if not np.array_equal(slide.thumbnail(64), expected[entry.id]):
                    wrong.append(entry.id)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(library._handles) == 1
    assert all(handle.users == 0 for handle in library._handles.values())


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    made_slide(tmp_path / "a.tif", 64, 64)
    os.mkfifo(tmp_path / "pipe.tiff")
    (entry,) = Library([tmp_path]).entries()
    assert entry.name == "a.tif"
    with pytest.raises(HistoclickError, match="neither a file nor a folder"):
        open_slide(tmp_path / "pipe.tiff")


def test_names_that_are_no_text_or_more_than_text_are_told_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_slide(tmp_path / "a\u202e\x1b[2Jb.tif", 64, 64)
    made_slide(tmp_path / "ä.tif", 64, 64, seed=1)
    shutil.copy(tmp_path / "ä.tif", os.fsencode(tmp_path) + b"/bad\xff.tif")
    (tmp_path / "c\x07.svs").write_bytes(b"no slide at all")
    library = Library([tmp_path])
    problems = {entry.name: entry.problem or "" for entry in library.entries()}
    assert list(problems) == [r"a\u202e\x1b[2Jb.tif", r"bad\udcff.tif", r"c\x07.svs", "ä.tif"]
    assert "rename it" in problems[r"bad\udcff.tif"]
    assert r"c\x07.svs" in problems[r"c\x07.svs"]
    assert all(map(str.isprintable, problems.values()))
    found = library.find("a\u202e\x1b[2Jb.tif")  # as other programs call it
    assert found is not None
    assert found.problem is None
    assert plain("नि\u200d 👩\u200d🔬") == "नि\u200d 👩\u200d🔬"

    def broken(*_: object, **__: object) -> Slide:
        raise MemoryError("no more")

    monkeypatch.setattr(module, "open_slide", broken)
    problems = {entry.name: entry.problem or "" for entry in Library([tmp_path]).entries()}
    assert problems["ä.tif"] == "ä.tif: cannot be read (no more)"
