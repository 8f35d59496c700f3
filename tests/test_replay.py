"""Real users' clicks as click records: what is counted, what is not, and that reports read it."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon
from shapely.affinity import translate
from typer.testing import CliRunner

from fakes import disc
from histoclick import records
from histoclick.annotations import Annotation, Canvas, Document, write
from histoclick.cli import app
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.metrics import iou
from histoclick.replay import replay
from histoclick.replay.history import as_it_was, histories
from histoclick.report import write_report
from histoclick.report.records import read_run
from histoclick.session import (
    Action,
    Book,
    BoxAround,
    ClickOn,
    Delete,
    Event,
    Import,
    Outline,
    Redo,
    Relabel,
    Stroke,
    Undo,
    from_row,
    to_row,
)
from histoclick.slides import Slide, open_slide
from histoclick.store import Store
from histoclick.types import HistoclickError, Prediction, Prompt
from slidemaker import make_slide

MPP = 2.0  # 8 px of level 0 per working px: slides are 400 x 300 of them


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Slide]]:
    folder = tmp_path_factory.mktemp("slides")
    opened = {}
    for seed, name in enumerate(("a", "b")):
        make_slide(folder / f"{name}.tif", seed=seed)
        opened[name] = open_slide(folder / f"{name}.tif")
    yield opened
    for slide in opened.values():
        slide.close()


@dataclass
class Dots:
    """A model that paints a dot around every click, on top of the mask it started from."""

    window_px: int = 448
    model: str = "m@1"
    boxes: bool = False

    def encode(self, rect0: Rect, width: int, height: int) -> tuple[int, int]:
        return width, height

    def predict(
        self, encoded: tuple[int, int], prompt: Prompt, previous: Prediction | None
    ) -> Prediction:
        width, height = encoded
        base = np.full((height, width), -4, np.float32)
        if previous is not None:
            base = previous.logits if previous.memory is None else previous.memory
        logits = base.copy()
        for click in prompt.clicks:
            dot = disc(max(encoded), click.x, click.y, 8 if click.positive else 4)
            logits[dot[:height, :width]] = 4 if click.positive else -4
        return Prediction(logits, base)


class Office:
    """People at work on slides, and the store they leave behind. A second passes per action."""

    def __init__(self, path: Path, slides: dict[str, Slide]) -> None:
        self.store = Store.open(str(path))
        self.clock = itertools.count(1_700_000_000.0)
        self.now = next(self.clock)
        self.books = {name: Book(slide) for name, slide in slides.items()}
        self.sights = {name: Dots() for name in slides}
        for slide in slides.values():
            self.store.slide(
                slide.fingerprint, name=slide.path.name, path=str(slide.path), width=slide.width,
                height=slide.height, mpp=slide.mpp,
            )  # fmt: skip

    def do(
        self, action: Action, user: str = "Ada", slide: str = "a", wait: float = 1.0, **facts: Any
    ) -> Event:
        self.now += wait
        book = self.books[slide]
        event = book.propose(
            action, id_=f"e{self.now}", client=user, user=user, time=self.now,
            sight=self.sights[slide],
        )  # fmt: skip
        row = to_row(event)
        row["facts"] = row["facts"] | facts
        self.store.append(book.slide.fingerprint, row)
        book.apply(from_row(row))
        return event

    def click(self, x: float, y: float, positive: bool = True, on: int | None = None, **more: Any):
        return self.do(ClickOn(on, x, y, positive, MPP, "Tumor"), **more)

    def shape(self, id_: int, slide: str = "a") -> Any:
        item = self.books[slide].objects[id_]
        return item.shape


@pytest.fixture
def office(tmp_path: Path, slides: dict[str, Slide]) -> Iterator[Office]:
    office = Office(tmp_path / "store.sqlite", slides)
    yield office
    office.store.close()


def table(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "clicks.parquet")


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def square_at(x: float, y: float, radius: int = 8) -> Polygon:
    """In px of level 0; the dot of a click there has a radius of 64 of them."""
    return Polygon.from_bounds(x - radius * 8, y - radius * 8, x + radius * 8, y + radius * 8)


def test_a_trajectory_is_what_was_left_of_it(office: Office, tmp_path: Path) -> None:
    """Three clicks stay, one is undone, one undone and done again."""
    office.click(400, 400, encode_seconds=2.0, seconds=0.25, quality=0.75)
    first = office.shape(1)
    office.click(480, 400, on=1, encode_seconds=0.0, seconds=0.5)
    second = office.shape(1)
    office.click(900, 900, on=1)
    office.do(Undo())
    office.click(400, 480, on=1, encode_seconds=0.5, seconds=0.5)
    office.do(Undo())
    office.do(Redo())
    final = office.shape(1)
    replayed = replay(office.store, tmp_path / "run")
    assert replayed.runs == (tmp_path / "run",)
    assert replayed.notes == ()
    rows = table(tmp_path / "run")
    assert rows["click"].tolist() == [1, 2, 3]
    assert rows["x"].tolist() == [49.5, 59.5, 49.5]  # px of 2 um, by their centres
    assert rows["y"].tolist() == [49.5, 49.5, 59.5]
    assert rows["positive"].all()
    assert rows["quality"].fillna(-1).tolist() == [0.75, -1, -1]
    assert rows["seconds"].tolist() == [0.25, 0.5, 0.5]
    assert rows["encode_seconds"].tolist() == [2.5] * 3
    assert rows["patch"].unique().tolist() == ["a_1"]
    assert rows["slide"].unique().tolist() == ["a"]
    whole = Rect(0, 0, 3200, 2400)
    masks = [rasterise(shape, whole, 400, 300) for shape in (first, second, final)]
    assert rows["iou"].tolist() == [iou(mask, masks[2]) for mask in masks]
    assert rows["iou"].iloc[0] < rows["iou"].iloc[1] < rows["iou"].iloc[2] == 1
    steps = [np.zeros_like(masks[0]), *masks]
    flipped = [int((a ^ b).sum()) for a, b in itertools.pairwise(steps)]
    assert rows["flipped"].tolist() == flipped
    assert rows["far_flipped"].tolist() == [0, 0, 0]
    (user,) = lines(tmp_path / "run" / "users.csv")
    counted = ("user", "class", "objects", "clicks", "strokes", "undone_clicks")
    assert [user[name] for name in counted] == ["Ada", "Tumor", "1", "3", "0", "1"]
    assert float(user["seconds_per_object"]) == 6


def test_a_report_reads_it(office: Office, tmp_path: Path) -> None:
    for slide, user in (("a", "Ada"), ("b", "Bo")):
        for number, x in enumerate((300, 900, 1500), start=1):
            office.click(x, 800, slide=slide, user=user)
            for more in range(number):
                office.click(x + 80 * more, 880, on=number, slide=slide, user=user)
    replay(office.store, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.card.click_rule == "user"
    assert run.card.model == "m"
    assert run.card.dataset == "store"
    assert (len(run), run.partial) == (6, False)
    assert sorted(set(run.slides)) == ["a", "b"]
    files = write_report([tmp_path / "run"], tmp_path / "page")
    page = files.page.read_text()
    assert "Real users clicked" in page
    assert "simulated user" not in page.lower()
    assert "| m |" in files.markdown.read_text()
    users = lines(tmp_path / "run" / "users.csv")
    assert [(user["user"], user["objects"], user["clicks"]) for user in users] == [
        ("Ada", "3", "9"), ("Bo", "3", "9"),
    ]  # fmt: skip
    assert "| Ada |" in (tmp_path / "run" / "users.md").read_text()


def test_who_stops_below_the_target_failed(office: Office, tmp_path: Path) -> None:
    """The truth is larger than what the user was content with: reports must count that."""
    office.click(400, 400)
    truth = tmp_path / "truth"
    annotate(truth, "a", square_at(400, 400, 16), square_at(3000, 2000))
    replay(office.store, tmp_path / "run", truth=truth)
    run = read_run(tmp_path / "run")
    painted = rasterise(square_at(400, 400, 16), Rect(0, 0, 3200, 2400), 400, 300)
    mask = rasterise(office.shape(1), Rect(0, 0, 3200, 2400), 400, 300)
    assert run.ious[0, 0] == iou(mask, painted)
    assert run.ious[0, 0] < 0.3
    assert len(run) == 1
    write_report([tmp_path / "run"], tmp_path / "page")
    text = (tmp_path / "page" / "table.md").read_text()
    head, _, line = (row.strip("| ").split(" | ") for row in text.splitlines()[2:5])
    told = dict(zip(head, line, strict=True))
    assert (told["Patches"], told["NoC@80"], told["NoF@90"]) == ("1", "20.00", "1 (100.0 %)")
    (user,) = lines(tmp_path / "run" / "users.csv")
    assert user["noc80"] == "20.0"
    assert records.read_card(tmp_path / "run")["protocol"]["truth"] == "the annotations in truth"


def annotate(folder: Path, name: str, *shapes: Polygon, suffix: str = ".geojson") -> Path:
    folder.mkdir(exist_ok=True)
    document = Document(tuple(Annotation(shape, "Tumor") for shape in shapes))
    write(document, folder / f"{name}{suffix}", None, Canvas(3200, 2400, 0.25))
    return folder


def test_the_truth_that_fits_best_is_taken(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    office.click(1600, 1200)
    office.click(2800, 2000)
    office.click(400, 400, slide="b")
    exact = office.shape(2)
    annotate(
        tmp_path / "truth", "a",
        translate(exact, 40, 0), exact, exact.buffer(50), square_at(400, 480), square_at(400, 440),
    )  # fmt: skip
    replayed = replay(office.store, tmp_path / "run", truth=tmp_path / "truth")
    rows = table(tmp_path / "run").set_index("patch")
    assert sorted(rows.index) == ["a_1", "a_2"]
    assert rows.loc["a_2", "iou"] == 1
    mask, better = (
        rasterise(shape, Rect(0, 0, 3200, 2400), 400, 300)
        for shape in (office.shape(1), square_at(400, 440))
    )
    assert rows.loc["a_1", "iou"] == iou(mask, better)
    assert replayed.notes == (
        "2 objects without a truth that meets them, counted for their users only",
    )
    (user,) = lines(tmp_path / "run" / "users.csv")
    assert user["objects"] == "4"


def test_truths_that_cannot_be_read(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    truth = annotate(tmp_path / "truth", "a", square_at(400, 400))
    with pytest.raises(HistoclickError, match="give a folder"):
        replay(office.store, tmp_path / "run", truth=truth / "a.geojson")
    annotate(truth, "a", square_at(400, 400), suffix=".tif.geojson")
    with pytest.raises(HistoclickError, match=r"may both be the truth of slide a\.tif"):
        replay(office.store, tmp_path / "run", truth=truth)
    (truth / "a.geojson").write_text("{")
    (truth / "a.tif.geojson").unlink()
    with pytest.raises(HistoclickError, match=r"a\.geojson"):
        replay(office.store, tmp_path / "run", truth=truth)
    assert not (tmp_path / "run").exists()


def test_the_brush_counts_for_no_iou_and_is_told(office: Office, tmp_path: Path) -> None:
    whole = Rect(0, 0, 3200, 2400)
    masks = []
    for action in (
        ClickOn(None, 400, 400, True, MPP, "Tumor"),
        Stroke(1, ((400.0, 400.0), (900.0, 400.0)), 60.0, False, MPP),
        ClickOn(1, 480, 400, True, MPP),  # goes on from what was painted
        Stroke(1, ((400.0, 700.0), (900.0, 700.0)), 60.0, False, MPP),
        ClickOn(1, 400, 440, False, MPP),
    ):
        office.do(action)
        masks.append(rasterise(office.shape(1), whole, 400, 300))
    office.click(1600, 1200)
    replay(office.store, tmp_path / "run")
    rows = table(tmp_path / "run")
    touched = rows[rows["patch"] == "a_1"]
    alone = masks[0].copy()
    expected = [iou(alone, masks[-1])]
    for before, after in ((masks[1], masks[2]), (masks[3], masks[4])):
        alone[before != after] = after[before != after]
        expected.append(iou(alone, masks[-1]))
    assert touched["iou"].tolist() == expected
    assert max(expected) < 0.4 < iou(masks[2], masks[-1])  # what it would be with painting
    assert touched["flipped"].tolist() == [
        masks[0].sum(), (masks[1] ^ masks[2]).sum(), (masks[3] ^ masks[4]).sum(),
    ]  # fmt: skip
    one, two = lines(tmp_path / "run" / "objects.csv")
    assert (one["clicks"], one["strokes"], one["iou"]) == ("3", "2", "1.0")
    assert float(one["clicks_iou"]) == expected[-1]
    assert (two["strokes"], two["clicks_iou"]) == ("0", "1.0")
    (user,) = lines(tmp_path / "run" / "users.csv")
    assert (user["strokes"], user["with_strokes"], user["objects"]) == ("2", "1", "2")
    write_report([tmp_path / "run"], tmp_path / "page")


def test_outlines_from_files_are_starts(office: Office, tmp_path: Path) -> None:
    outlines = (Outline(square_at(400, 400), "Old"), Outline(square_at(1600, 1600), "Old"))
    office.do(Import(outlines))
    office.click(500, 400, on=1)
    replayed = replay(office.store, tmp_path / "run")
    (row,) = table(tmp_path / "run").to_dict("records")
    final, old = (
        rasterise(shape, Rect(0, 0, 3200, 2400), 400, 300)
        for shape in (office.shape(1), square_at(400, 400))
    )
    assert row["start_iou"] == iou(old, final) < row["iou"] == 1
    assert row["flipped"] == int((old ^ final).sum())
    assert replayed.notes == ("1 object from files that nobody worked on, left out",)
    assert records.read_card(tmp_path / "run")["protocol"]["start"] == (
        "nothing or an outline from a file"
    )
    assert read_run(tmp_path / "run").started
    (line,) = lines(tmp_path / "run" / "objects.csv")
    assert (line["imported"], line["class"], line["undone_clicks"]) == ("True", "Old", "0")
    write_report([tmp_path / "run"], tmp_path / "page")


def test_boxes_are_starts_and_no_clicks(office: Office, tmp_path: Path) -> None:
    office.do(BoxAround(None, 300, 300, 700, 700, MPP, "Tumor"))
    office.click(760, 500, on=1)
    office.do(BoxAround(None, 1300, 1300, 1700, 1700, MPP, "Tumor"))
    replayed = replay(office.store, tmp_path / "run")
    (row,) = table(tmp_path / "run").to_dict("records")
    assert row["patch"] == "a_1"
    assert 0 < row["start_iou"] < row["iou"] == 1
    assert replayed.notes == ("1 object without clicks, counted for their users only",)
    (user,) = lines(tmp_path / "run" / "users.csv")
    assert (user["objects"], user["boxes"], user["clicks"]) == ("2", "2", "1")


def test_what_is_gone_is_left_out_and_told(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    office.click(480, 400, on=1)
    office.do(Delete(1))
    office.click(1000, 1000)
    office.do(Undo())
    office.click(1600, 1200)
    office.do(Delete(max(office.books["a"].objects)))
    office.do(Undo())
    replayed = replay(office.store, tmp_path / "run")
    assert replayed.notes == ("2 objects deleted or taken back, left out",)
    assert table(tmp_path / "run")["x"].tolist() == [199.5]
    (user,) = lines(tmp_path / "run" / "users.csv")
    assert (user["objects"], user["clicks"], user["undone_clicks"]) == ("1", "1", "1")


def test_pauses_do_not_count(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    office.click(480, 400, on=1, wait=60)
    office.click(480, 480, on=1, wait=61)
    office.do(Relabel(1, "Stroma"), wait=7)
    replay(office.store, tmp_path / "run")
    (user,) = lines(tmp_path / "run" / "users.csv")
    assert (user["class"], float(user["seconds_per_object"])) == ("Stroma", 67)


def test_users_and_slides_can_be_chosen(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    office.click(1000, 1000, user="Bo")
    office.click(1600, 1600)
    office.click(1680, 1600, on=3, user="Bo")
    office.click(400, 400, slide="b", user="")
    replayed = replay(office.store, tmp_path / "ada", user="Ada")
    assert table(tmp_path / "ada")["patch"].tolist() == ["a_1"]
    assert replayed.notes == ("3 objects of other users, or of several, left out",)
    replay(office.store, tmp_path / "b", slide="b.tif")
    assert table(tmp_path / "b")["patch"].tolist() == ["b_1"]
    replay(office.store, tmp_path / "all")
    names = [line["user"] for line in lines(tmp_path / "all" / "users.csv")]
    assert names == ["(no name)", "Ada", "Ada + Bo", "Bo"]
    with pytest.raises(HistoclickError, match=r"nobody clicked on a slide 'c'.*a.tif, b.tif"):
        replay(office.store, tmp_path / "c", slide="c")
    with pytest.raises(HistoclickError, match="no object to compare that somebody clicked on"):
        replay(office.store, tmp_path / "c", user="Cy")
    assert not (tmp_path / "c").exists()


def test_a_run_for_each_model(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    office.sights["a"].model = "other/model@2"
    office.click(1600, 1200)
    office.click(2400, 1200)
    replayed = replay(office.store, tmp_path / "run")
    assert [path.name for path in replayed.runs] == ["m@1", "other-model@2"]
    assert [read_run(path).card.model for path in replayed.runs] == ["m", "other/model"]
    assert [len(read_run(path)) for path in replayed.runs] == [1, 2]
    write_report([tmp_path / "run"], tmp_path / "page")


def test_twenty_clicks_count(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    for i in range(24):
        office.click(400 + 16 * i, 400, on=1)
    replayed = replay(office.store, tmp_path / "run")
    assert table(tmp_path / "run")["click"].tolist() == list(range(1, 21))
    assert replayed.notes == ("1 object with more than 20 clicks, of which the first 20 count",)
    (user,) = lines(tmp_path / "run" / "users.csv")
    assert user["clicks"] == "25"
    assert len(read_run(tmp_path / "run")) == 1


def test_nothing_is_replaced(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    with pytest.raises(HistoclickError, match="is there already; choose another --out"):
        replay(office.store, tmp_path / "run")
    (tmp_path / "run" / "precious").unlink()
    replay(office.store, tmp_path / "run")  # an empty folder is nothing
    assert not list(tmp_path.glob(".histoclick-*"))


def test_slides_need_not_be_there(slides: dict[str, Slide], office: Office) -> None:
    """Also one whose pixels are no squares: sizes come from the store and the events."""
    (row,) = [row for row in office.store.slides() if row["name"] == "a.tif"]
    click = ClickOn(None, 1.0, 1.0, True, 2.0)
    facts = {"window": [0, 0, 800.0, 1600.0], "width": 100, "height": 100, "model": "m"}
    event = Event(1, "e", "c", "u", 0.0, click, None, facts)
    stand_in = as_it_was(row | {"path": "/gone/a.tif", "mpp": 0.1875}, [event])
    assert (stand_in.width, stand_in.height) == (3200, 2400)
    assert (stand_in.mpp_x, stand_in.mpp_y, stand_in.mpp) == (0.25, 0.125, 0.1875)
    assert stand_in.scale(2.0) == (8.0, 16.0)
    assert as_it_was(row | {"mpp": None}, [event]).mpp is None
    with pytest.raises(HistoclickError, match="no pixels"):
        stand_in.read(Rect(0, 0, 8, 8), 8, 8)


clicks = st.tuples(st.integers(10, 390), st.integers(10, 290), st.booleans(), st.integers(0, 3))
deeds = st.lists(
    st.one_of(clicks, st.sampled_from(["undo", "redo", "delete", "stroke"])), max_size=12
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["Ada", "Bo"]), deeds), max_size=5))
def test_histories_end_where_the_book_does(slides: dict[str, Slide], turns: list[Any]) -> None:
    """Whatever two people do and undo: what stayed is what the book has."""
    slide = slides["a"]
    book, log, sight = Book(slide), [], Dots()
    for user, todo in turns:
        for deed in todo:
            if deed in ("delete", "stroke") and not book.objects:
                continue
            action = as_action(deed, sorted(book.objects))
            try:
                event = book.propose(
                    action, id_=f"{len(log)}", client=user, user=user, time=len(log), sight=sight
                )
            except HistoclickError:  # nothing to undo
                continue
            book.apply(event)
            log.append(event)
    row = {"path": "a", "width": slide.width, "height": slide.height, "mpp": slide.mpp}
    told = histories(row, log)
    assert {history.id: history.item.clicks for history in told if history.item} == {
        id_: item.clicks for id_, item in book.objects.items()
    }
    for history in told:
        made = sum(isinstance(event.action, ClickOn) for event in history.events)
        assert made == len(history.clicks) + len(history.undone)
        if history.item is not None:
            assert len(history.clicks) == len(history.item.clicks)
            marks = [(frame.event.action.x, frame.event.action.y) for frame in history.clicks]
            assert marks == [(mark.x, mark.y) for mark in history.item.clicks]
    assert sum(isinstance(event.action, ClickOn) for event in log) == sum(
        len(history.clicks) + len(history.undone) for history in told
    )


def as_action(deed: Any, objects: list[int]) -> Action:
    if isinstance(deed, tuple):
        x, y, positive, which = deed
        on = objects[which] if which < len(objects) else None
        return ClickOn(on, x * 8.0, y * 8.0, positive, MPP, "Tumor")
    kinds: dict[str, Callable[[], Action]] = {
        "undo": Undo, "redo": Redo, "delete": lambda: Delete(objects[-1]),
        "stroke": lambda: Stroke(objects[0], ((800.0, 800.0),), 80.0, False, MPP),
    }  # fmt: skip
    return kinds[deed]()


def test_the_command(office: Office, tmp_path: Path) -> None:
    office.click(400, 400)
    office.click(480, 400, on=1)
    office.store.close()
    store, out = str(tmp_path / "store.sqlite"), tmp_path / "run"
    result = CliRunner().invoke(app, ["replay", store, "--out", str(out), "--slide", "a"])
    assert result.exit_code == 0, result.output
    assert "| Ada |" in result.output
    assert f"Next: histoclick report {out}" in result.output
    result = CliRunner().invoke(app, ["report", str(out), "--out", str(tmp_path / "page")])
    assert result.exit_code == 0, result.output
    missing = CliRunner().invoke(app, ["replay", str(tmp_path / "no.sqlite"), "--out", str(out)])
    assert isinstance(missing.exception, HistoclickError)
    assert not (tmp_path / "no.sqlite").exists()
