"""Annotating a slide: the fold over events, and what the model is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, MultiPolygon, Polygon, box
from shapely.geometry import Point

from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.session import (
    Action,
    Book,
    BoxAround,
    Class,
    ClickOn,
    Delete,
    Event,
    Import,
    Outline,
    Redo,
    Relabel,
    RelabelAll,
    Rename,
    SetClasses,
    Stroke,
    Tidy,
    Undo,
    from_plain,
    from_row,
    to_plain,
    to_row,
)
from histoclick.slides import Slide, open_slide
from histoclick.types import HistoclickError
from session.sights import Knowing
from slidemaker import make_slide

MPP = 2.0  # 8 px of level 0 per working px: the slide is 400 x 300 of them


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    make_slide(path)
    with open_slide(path) as opened:
        yield opened


def round_one(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A disc that is much larger than a window of 64 working px."""
    return (x - 1600) ** 2 + (y - 1200) ** 2 < 800**2


class Desk:
    """Somebody who works, and the log of what was done."""

    def __init__(self, slide: Slide, sight: Knowing | None = None) -> None:
        self.book = Book(slide)
        self.sight = sight or Knowing(round_one)
        self.log: list[Event] = []

    def do(self, action: Action, client: str = "tab", user: str = "") -> Event:
        number = len(self.log)
        event = self.book.propose(
            action, id_=f"e{number}", client=client, user=user, time=number, sight=self.sight
        )
        self.book.apply(event)
        self.log.append(from_row(to_row(event)))
        return event


def seen(book: Book) -> dict[int, tuple[object, ...]]:
    """All that a user sees of a book."""
    return {
        id_: (item.label, item.name, item.clicks, item.box, item.shape and item.shape.wkb)
        for id_, item in book.objects.items()
    }


places = st.tuples(st.floats(0, 3200), st.floats(0, 2400))
objects = st.sampled_from([None, 1, 2, 3])
actions = st.one_of(
    st.builds(lambda o, p, s: ClickOn(o, *p, s, MPP, "a"), objects, places, st.booleans()),
    st.builds(
        lambda o, ps, e: Stroke(o, tuple(ps), 90.0, e, MPP, "b"),
        objects, st.lists(places, min_size=1, max_size=3), st.booleans(),
    ),
    st.builds(lambda o, p: BoxAround(o, *p, p[0] + 200, p[1] + 150, MPP), objects, places),
    st.builds(lambda o: Relabel(o or 1, "c"), objects),
    st.just(RelabelAll((("a", "b"), ("b", "a")))),
    st.builds(lambda o: Rename(o or 1, "n"), objects),
    st.builds(lambda o: Tidy(o or 1), objects),
    st.builds(lambda o: Delete(o or 1), objects),
    st.builds(lambda p: Import((Outline(box(*p, p[0] + 300, p[1] + 90), "i"),)), places),
    st.just(SetClasses((Class("x", (1, 2, 3), "9"),))),
    st.just(Undo()), st.just(Undo()), st.just(Redo()),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(actions, st.sampled_from(["one", "two"])), max_size=14))
def test_what_was_logged_is_what_is_there(slide: Slide, work: list[tuple[Action, str]]) -> None:
    desk = Desk(slide)
    for action, client in work:
        before = seen(desk.book)
        try:
            desk.do(action, client, client)
        except HistoclickError:
            assert seen(desk.book) == before  # what cannot be done changes nothing
    again = Book(slide, desk.log)
    assert seen(again) == seen(desk.book)
    assert again.seq == desk.book.seq == len(desk.log)
    assert again.versions == desk.book.versions
    assert again.classes == desk.book.classes
    for client in ("one", "two"):
        assert again.can_undo(client, client) == desk.book.can_undo(client, client)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        actions.filter(lambda a: not isinstance(a, Undo | Redo | SetClasses | RelabelAll)),
        max_size=8,
    )
)
def test_undo_goes_back_to_the_beginning_and_redo_to_the_end(
    slide: Slide, work: list[Action]
) -> None:
    desk = Desk(slide)
    states = [seen(desk.book)]
    for action in work:
        try:
            desk.do(action)
        except HistoclickError:
            continue
        states.append(seen(desk.book))
    for state in reversed(states[:-1]):
        desk.do(Undo())
        assert seen(desk.book) == state
    assert not desk.book.can_undo("tab", "")
    with pytest.raises(HistoclickError, match="nothing to take back"):
        desk.do(Undo())
    for state in states[1:]:
        desk.do(Redo())
        assert seen(desk.book) == state
    with pytest.raises(HistoclickError, match="nothing to do again"):
        desk.do(Redo())


def test_the_window_follows_the_clicks_and_leaves_no_seam(slide: Slide) -> None:
    sight = Knowing(round_one, noise=4)  # wrong at the border of every window
    desk = Desk(slide, sight)
    for y in range(400, 2100, 120):
        for x in range(800, 2500, 120):
            desk.do(ClickOn(None if not desk.log else 1, x, y, bool(round_one(x, y)), MPP, "Tumor"))
    assert len({rect0 for rect0, _, _ in sight.asked}) > 20
    mask = rasterise(desk.book.objects[1].shape, Rect(0, 0, 3200, 2400), 400, 300)
    y, x = (np.mgrid[:300, :400] + 0.5) * 8
    looked_at = np.zeros((300, 400), bool)
    for rect0, _, _ in sight.asked:
        x0, y0 = int(rect0.x0 / 8), int(rect0.y0 / 8)
        looked_at[y0 + 8 : y0 + 56, x0 + 8 : x0 + 56] = True  # not where it fades out
    assert (looked_at & round_one(x, y)).sum() > 0.8 * round_one(x, y).sum()
    assert (mask == round_one(x, y))[looked_at].all()


def test_a_change_that_runs_out_of_the_window_is_for_the_click_in_it(slide: Slide) -> None:
    upper, lower = Knowing(lambda x, y: y < 1150), Knowing(lambda x, y: y > 1450)
    desk = Desk(slide, upper)
    for x in range(1100, 2200, 256):
        for y in range(800, 1900, 256):
            desk.do(ClickOn(1 if desk.log else None, x, y, True, MPP))
    before = desk.book.objects[1].shape
    assert before is not None
    desk.sight = lower  # now the model thinks otherwise, about the window of this click and beyond
    desk.do(ClickOn(1, 1600, 1290, False, MPP))
    window = desk.book.objects[1].window
    grid = desk.book.objects[1].grid
    assert window is not None
    assert grid is not None
    rect0 = grid.rect0(window)
    assert rect0.y0 < 1150 < 1450 < rect0.y1  # both would change
    assert desk.book.objects[1].shape.equals(before)
    desk.do(ClickOn(1, 1600, 1460, True, MPP))
    after = desk.book.objects[1].shape
    assert after.covers(Point(1600, 1460))  # where it was asked for it
    assert after.intersection(box(0, 0, 3200, 1152)).equals(before)


def test_outlines_are_exact_in_level_0(slide: Slide) -> None:
    desk = Desk(slide)
    desk.do(ClickOn(None, 1600, 1200, True, MPP))
    shape = desk.book.objects[1].shape
    assert shape is not None
    window = desk.book.objects[1].window
    grid = desk.book.objects[1].grid
    assert window is not None
    assert grid is not None
    rect0 = grid.rect0(window)
    assert shape.equals(box(rect0.x0, rect0.y0, rect0.x1, rect0.y1))  # all of it is object
    assert desk.book.document().annotations[0].shape.equals(shape)


def test_the_model_is_told_what_was_said_in_its_window_and_remembers(slide: Slide) -> None:
    sight = Knowing(round_one)
    desk = Desk(slide, sight)
    desk.do(ClickOn(None, 1600, 1200, True, MPP))
    desk.do(ClickOn(1, 1620, 1210, False, MPP))
    desk.do(ClickOn(1, 2600, 1200, False, MPP))  # far away: another window
    (first, one, none), (second, two, memory), (third, three, mask) = sight.asked
    assert first == second != third
    assert none is None
    assert memory is not None
    assert memory.memory == 1
    assert mask is None  # nobody looked there before
    assert [len(prompt.clicks) for prompt in (one, two, three)] == [1, 2, 1]
    assert [click.positive for click in two.clicks] == [True, False]
    x = (1620 - second.x0) / 8 - 0.5
    assert two.clicks[1].x == pytest.approx(x)


def test_after_a_restart_the_model_goes_on_where_it_was(slide: Slide) -> None:
    desk = Desk(slide)
    for i in range(5):
        desk.do(ClickOn(1 if i else None, 1600 + i, 1200, True, MPP))
    again = Desk(slide)
    again.book = Book(slide, desk.log)
    again.log = list(desk.log)
    desk.do(ClickOn(1, 1610, 1210, False, MPP))
    again.do(ClickOn(1, 1610, 1210, False, MPP))
    *asked_again, last = again.sight.asked
    assert len(asked_again) == 5  # to remember what it said
    rect0, prompt, previous = desk.sight.asked[-1]
    assert last[:2] == (rect0, prompt)
    assert previous is not None
    assert last[2] is not None
    assert last[2].memory == previous.memory == 5


def test_another_model_goes_on_from_the_mask(slide: Slide) -> None:
    desk = Desk(slide)
    desk.do(ClickOn(None, 1600, 1200, True, MPP))
    desk.sight = Knowing(round_one, model="other@2")
    desk.do(ClickOn(1, 1610, 1200, True, MPP))
    previous = desk.sight.asked[-1][2]
    assert previous is not None
    assert previous.memory is None
    assert previous.mask.all()


def test_what_was_painted_stays_until_a_click_says_the_opposite(slide: Slide) -> None:
    desk = Desk(slide)
    desk.do(ClickOn(None, 1600, 1200, True, MPP))
    desk.do(Stroke(1, ((1600.0, 1200.0), (1700.0, 1200.0)), 60.0, True, MPP))
    inside = Point(1650, 1200)
    assert not desk.book.objects[1].shape.covers(inside)
    desk.do(ClickOn(1, 1600, 1400, True, MPP))  # the model still says that all is object
    assert not desk.book.objects[1].shape.covers(inside)
    previous = desk.sight.asked[-1][2]
    assert previous is not None
    assert previous.memory is None  # it has to see the stroke
    assert not previous.mask.all()
    desk.do(ClickOn(1, 1650, 1200, True, MPP))
    assert desk.book.objects[1].shape.covers(inside)
    desk.do(Undo())
    assert not desk.book.objects[1].shape.covers(inside)


def test_an_outline_from_a_file_is_exact_until_it_is_corrected(slide: Slide) -> None:
    desk = Desk(slide)
    drawn = Polygon(
        [(900.25, 700.5), (2300, 710), (2250, 1700), (905, 1690)],
        [[(1500, 1100), (1700, 1100), (1700, 1300), (1500, 1300)]],
    )
    desk.do(Import((Outline(drawn, "Tumor", "lesion 1"), Outline(Point(5, 5), "mark"))))
    assert desk.book.objects[1].shape.equals(drawn)
    assert [each.name for each in desk.book.document().annotations] == ["lesion 1", ""]
    desk.do(ClickOn(1, 1600, 1200, True, MPP))
    previous = desk.sight.asked[-1][2]
    assert previous is not None
    rect0 = desk.sight.asked[-1][0]
    window = desk.book.objects[1].window
    assert window is not None
    assert (previous.mask == rasterise(drawn, rect0, window.width, window.height)).all()
    corrected = desk.book.objects[1].shape
    assert corrected.covers(Point(1600, 1200))  # the hole is filled
    far = Polygon([(900, 1500), (2300, 1500), (2300, 1700), (900, 1700)])
    error = corrected.intersection(far).symmetric_difference(drawn.intersection(far)).area
    assert error < 8 * drawn.intersection(far).length  # the rest as it was, to a working px
    desk.do(Undo())
    assert desk.book.objects[1].shape.equals(drawn)


def test_nobody_takes_back_what_another_one_built_on(slide: Slide) -> None:
    desk = Desk(slide)
    desk.do(ClickOn(None, 1600, 1200, True, MPP), "one", "ann")
    desk.do(ClickOn(1, 1700, 1200, True, MPP), "two", "bob")
    assert not desk.book.can_undo("one", "ann")
    with pytest.raises(HistoclickError, match="somebody else"):
        desk.do(Undo(), "one", "ann")
    desk.do(Undo(), "two", "bob")
    desk.do(Undo(), "one", "ann")
    assert not desk.book.objects
    desk.do(Redo(), "one", "ann")
    desk.do(ClickOn(1, 1500, 1200, True, MPP), "one", "ann")
    with pytest.raises(HistoclickError, match="somebody else"):
        desk.do(Redo(), "two", "bob")


def test_a_new_tab_takes_back_what_the_same_user_did_before(slide: Slide) -> None:
    desk = Desk(slide)
    desk.do(ClickOn(None, 1600, 1200, True, MPP), "yesterday", "ann")
    with pytest.raises(HistoclickError, match="nothing"):
        desk.do(Undo(), "other", "bob")
    desk.do(Undo(), "today", "ann")
    assert not desk.book.objects


def test_a_box_is_told_to_a_model_that_knows_boxes_and_becomes_clicks_for_others(
    slide: Slide,
) -> None:
    around = BoxAround(None, 1500, 1100, 1700, 1300, MPP)
    knows = Knowing(round_one, boxes=True)
    Desk(slide, knows).do(around)
    rect0, prompt, _ = knows.asked[0]
    assert prompt.box is not None
    assert prompt.box.x0 == pytest.approx((1500 - rect0.x0) / 8 - 0.5)
    assert not prompt.clicks
    clicks = Knowing(round_one)
    Desk(slide, clicks).do(around)
    prompts = [prompt for _, prompt, _ in clicks.asked]
    assert [len(prompt.clicks) for prompt in prompts] == [1, 2, 3, 4, 5]  # one at a time
    assert all(prompt.box is None for prompt in prompts)
    signs = [click.positive for click in prompts[-1].clicks]
    assert signs == [True, False, False, False, False]
    begun = clicks.asked[0][2]
    assert begun.mask.sum() == 26 * 26  # the box, filled


def test_classes_change_names_at_once_and_back(slide: Slide) -> None:
    desk = Desk(slide)
    for x, label in enumerate("aabc"):
        desk.do(ClickOn(None, 300 + 700 * x, 1200, True, MPP, label))

    def labels() -> str:
        return "".join(item.label for item in desk.book.objects.values())

    event = desk.do(RelabelAll((("a", "b"), ("b", "a"))))
    assert labels() == "bbac"
    assert desk.book.since(event.seq - 1).objects == (1, 2, 3)
    desk.do(Undo())
    assert labels() == "aabc"
    desk.do(Redo())
    assert labels() == "bbac"


def test_a_stroke_that_crosses_itself_ten_thousand_times(slide: Slide) -> None:
    """As a whole, shapely would not be done with it today."""
    points = tuple((j * 7919 % 2200, j * 104729 % 900) for j in range(10_000))
    desk = Desk(slide)
    desk.do(Stroke(None, points, 3.0, False, MPP))
    assert desk.book.objects[1].shape.area > 1e6


def test_a_stroke_is_its_line_with_a_round_brush(slide: Slide) -> None:
    points = ((400.0, 400.0), (900.0, 700.0), (900.0, 700.0), (500.0, 800.0), (700.0, 300.0))
    desk = Desk(slide)
    desk.do(Stroke(None, points, 60.0, False, MPP))
    shape = desk.book.objects[1].shape
    line = LineString(points).buffer(60)
    y, x = np.mgrid[:150, :200] * 8 + 4
    centres = shapely.points(x, y)
    wrong = shapely.covers(shape, centres) != shapely.covers(line, centres)
    assert wrong.sum() <= 2  # round ends are polygons, made in two ways


def test_a_click_on_the_far_border_is_for_the_last_pixel(slide: Slide) -> None:
    knowing = Knowing(lambda x, y: x > 3000)
    Desk(slide, knowing).do(ClickOn(None, 3200, 2400, True, MPP))
    ((_, prompt, _),) = knowing.asked
    (click,) = prompt.clicks
    assert (click.x, click.y) == (63, 63)


def test_a_stroke_without_width_is_refused(slide: Slide) -> None:
    with pytest.raises(HistoclickError, match=r"radius of 0\.01 px or more"):
        Desk(slide).do(Stroke(None, ((500.0, 500.0),), 1e-300, False, MPP))


def test_objects_that_rest_are_as_they_were(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their pixels are let go and made again."""
    monkeypatch.setattr("histoclick.session.deeds.FRESH", 1)
    desk = Desk(slide)
    for turn in range(3):
        for x in (600, 1600, 2600):
            object_ = None if turn == 0 else (600, 1600, 2600).index(x) + 1
            desk.do(ClickOn(object_, x + 60 * turn, 1200, turn != 1, MPP))
    assert sum("mask" in vars(item) for item in desk.book.objects.values()) <= 1
    shapes = [item.shape for item in desk.book.objects.values()]
    again = Book(slide, desk.log)
    assert all(a.equals(b.shape) for a, b in zip(shapes, again.objects.values(), strict=True))
    for _ in range(9):
        desk.do(Undo())
    for _ in range(9):
        desk.do(Redo())
    assert all(a.equals(b.shape) for a, b in zip(shapes, desk.book.objects.values(), strict=True))


def test_parts_that_nobody_clicked_in_are_dropped_and_come_back(slide: Slide) -> None:
    """Three squares are the model's answer; somebody clicked in one and painted on another."""

    def squares(x: Any, y: Any) -> Any:
        return (abs(y - 1200) < 40) & (abs((x - 1600 + 80) % 160 - 80) < 40) & (abs(x - 1600) < 200)

    desk = Desk(slide, Knowing(squares))
    desk.do(ClickOn(None, 1600, 1200, True, MPP))
    before = desk.book.objects[1]
    assert len(before.parts) == 3
    desk.do(Stroke(1, ((1760, 1290),), 60, False, MPP))
    desk.do(Tidy(1))
    shape = desk.book.objects[1].shape
    assert [round(x) for x in shape.bounds][::2] == [1560, 1816]
    assert Book(slide, desk.log).objects[1].shape.equals(shape)
    desk.do(Undo())
    desk.do(Undo())
    assert desk.book.objects[1].shape.equals(before.shape)


def test_of_an_outline_from_a_file_the_largest_part_is_kept(slide: Slide) -> None:
    parts = MultiPolygon([box(0, 0, 90, 90), box(200, 200, 210, 210)])
    desk = Desk(slide)
    desk.do(Import((Outline(parts),)))
    desk.do(Tidy(1))
    assert desk.book.objects[1].shape.equals(box(0, 0, 90, 90))
    with pytest.raises(HistoclickError, match="has one part"):
        desk.do(Tidy(1))


def test_objects_without_area_are_left_out_of_files_and_told(slide: Slide) -> None:
    desk = Desk(slide)
    desk.do(ClickOn(None, 1600, 1200, True, MPP))
    desk.do(Stroke(None, ((400.0, 400.0),), 40, False, MPP))
    desk.do(Stroke(2, ((400.0, 400.0),), 90, True, MPP))
    document = desk.book.document()
    assert len(document.annotations) == 1
    assert document.notes == ("1 of the objects without area, left out",)


def test_files_of_another_slide_are_refused(slide: Slide) -> None:
    with pytest.raises(HistoclickError, match="nothing in the file lies on this slide"):
        Desk(slide).do(Import((Outline(box(9000, 9000, 9100, 9100)),)))


def test_what_runs_out_of_a_box_is_cut_until_somebody_clicks_beyond(slide: Slide) -> None:
    everywhere = Knowing(lambda x, y: x > -1)
    desk = Desk(slide, everywhere)
    desk.do(BoxAround(None, 1496, 1096, 1704, 1304, MPP))
    (item,) = desk.book.objects.values()
    assert item.shape.bounds == pytest.approx((1496, 1096, 1704, 1304), abs=8)
    desk.do(ClickOn(1, 1600, 1200, True, MPP))
    assert desk.book.objects[1].shape.bounds == item.shape.bounds
    desk.do(ClickOn(1, 1740, 1200, True, MPP))
    assert desk.book.objects[1].shape.area > 1.5 * item.shape.area


def test_a_large_box_is_worked_on_at_a_resolution_at_which_it_fits(slide: Slide) -> None:
    desk = Desk(slide)
    event = desk.do(BoxAround(None, 200, 200, 2900, 2300, 0.25, "Tumor"))
    item = desk.book.objects[1]
    assert item.mpp == 16
    assert event.action == replace(event.action, mpp=16)
    desk.do(ClickOn(None, 1600, 1200, True, 0.25))
    with pytest.raises(HistoclickError, match="new object"):
        desk.do(BoxAround(2, 0, 0, 3200, 2400, 0.25))


def test_no_object_is_worked_on_finer_than_the_slide(slide: Slide) -> None:
    desk = Desk(slide)
    desk.do(ClickOn(None, 100, 100, True, 0.01))
    assert desk.book.objects[1].mpp == 0.25


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (ClickOn(None, 4000, 10, True, MPP), "outside of the slide"),
        (ClickOn(7, 10, 10, True, MPP), "no object 7"),
        (ClickOn(None, 10, 10, True, 1e6), "too coarse"),
        (BoxAround(None, 5000, 0, 5001, 9, MPP), "no area on the slide"),
        (Stroke(None, (), 5.0, False, MPP), "a point"),
        (Delete(1), "no object 1"),
        (Import(()), "no object"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(slide: Slide, action: Action, sentence: str) -> None:
    with pytest.raises(HistoclickError, match=sentence):
        Desk(slide).do(action)


def test_an_event_that_cannot_follow_is_refused(slide: Slide) -> None:
    desk = Desk(slide)
    event = desk.do(ClickOn(None, 100, 100, True, MPP))
    with pytest.raises(HistoclickError, match="cannot follow"):
        desk.book.apply(event)


@given(actions)
def test_actions_are_plain_values_and_back(action: Action) -> None:
    again = from_plain(to_plain(action))
    assert to_plain(again) == to_plain(action)
    assert type(again) is type(action)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "explode"},
        {"kind": "click", "object": None, "x": 1.0},
        {
            "kind": "click",
            "object": None,
            "x": float("nan"),
            "y": 1.0,
            "positive": True,
            "mpp": 1.0,
        },
        {"kind": "import", "outlines": [{"wkb": "zz", "label": "", "name": ""}]},
        {"kind": "undo", "more": 1},
        {"kind": "classes", "classes": [{"name": "a", "colour": [1, 2]}]},
    ],
)
def test_plain_values_of_no_action_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(HistoclickError):
        from_plain(values)


def shape_of(slide: Slide, event: Event) -> object:
    book = Book(slide, [event])
    return book.objects[1].shape


def test_a_damaged_answer_is_refused(slide: Slide) -> None:
    desk = Desk(slide)
    event = desk.do(ClickOn(None, 1600, 1200, True, MPP))
    for result in (None, b"", b"HCL1", event.result[:30] if event.result else b""):
        with pytest.raises(HistoclickError, match="damaged"):
            shape_of(slide, replace(event, result=result))


def test_a_slide_that_does_not_say_its_resolution_can_be_annotated(tmp_path: Path) -> None:
    make_slide(tmp_path / "slide.tif", mpp=None, width=300, height=200)
    with open_slide(tmp_path / "slide.tif") as slide:
        desk = Desk(slide, Knowing(lambda x, y: x < 150, window_px=400))
        desk.do(ClickOn(None, 100, 100, True, 1.0))
        assert desk.book.objects[1].shape.equals(box(0, 0, 150, 200))
