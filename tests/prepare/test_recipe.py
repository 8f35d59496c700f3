"""Splits: shares, seeds, stability."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoclick.datasets.folder import Folder
from histoclick.prepare import Recipe, Splits
from histoclick.types import HistoclickError

NAMES = st.lists(st.text("abc0123456789", min_size=1, max_size=6), unique=True, max_size=40)
SHARES = st.lists(st.floats(0.05, 5), min_size=1, max_size=4)


@given(NAMES, SHARES, st.integers(0, 99))
def test_every_slide_gets_a_split_and_shares_are_kept(
    names: list[str], shares: list[float], seed: int
) -> None:
    splits = Splits({f"s{i}": share for i, share in enumerate(shares)}, seed)
    given_ = splits.assign(names, {})
    assert given_.keys() == set(names)
    counts = Counter(given_.values())
    for name, share in splits.shares.items():
        assert abs(counts[name] - len(names) * share / sum(shares)) < len(shares)
    assert given_ == splits.assign(reversed(names), {})  # the order of files does not matter


@given(NAMES, st.integers(0, 99))
def test_new_slides_move_no_old_one(names: list[str], seed: int) -> None:
    splits = Splits({"train": 0.8, "test": 0.2}, seed)
    old = splits.assign(names[: len(names) // 2], {})
    both = splits.assign(names, old)
    assert {slide: both[slide] for slide in old} == old
    assert abs(Counter(both.values())["test"] - 0.2 * len(names)) <= 1.5


def test_the_seed_decides() -> None:
    names = [f"slide-{i}" for i in range(20)]
    drawn = [Splits({"train": 1, "test": 1}, seed).assign(names, {}) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_no_split_stays_empty_if_there_are_slides_enough() -> None:
    shares = Splits({"train": 0.8, "val": 0.1, "test": 0.1})
    for count in (3, 4, 5, 9):
        assert len(set(shares.assign([f"s{i}" for i in range(count)], {}).values())) == 3
    assert shares.gaps(shares.assign(["a", "b"], {})) == ["split test has no slide"]


def test_shares_as_text() -> None:
    assert Splits.parse("train=0.8,val=0.1 test=0.1").shares == {
        "train": 0.8, "val": 0.1, "test": 0.1,
    }  # fmt: skip
    assert Splits.parse("").assign(["a"], {}) == {"a": ""}


@pytest.mark.parametrize(
    "text", ["train", "train=x", "train=0", "=1", "../up=1", "images=1", "a=-1"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(HistoclickError):
        Splits.parse(text)


def test_a_table_of_splits(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("slide,split\na,train\nb,test\n")
    assert Splits.parse(str(path)).assign(["a", "c"], {}) == {"a": "train"}
    assert Splits.parse(str(path)).gaps({"a": "train"}) == [
        "b: in the table of splits, but no such slide"
    ]
    path.write_text("name\na\n")
    with pytest.raises(HistoclickError, match="columns slide and split"):
        Splits.parse(str(path))
    with pytest.raises(HistoclickError, match="no table"):
        Splits.parse(str(tmp_path / "missing.csv"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mpp": 0.0}, {"size_px": 4}, {"object_fraction": (0.8, 0.2)},
        {"object_fraction": (0.0, 1.5)}, {"tissue_fraction": 2.0}, {"stride_px": -1},
        {"slide_mpp": 0.0},
    ],
)  # fmt: skip
def test_recipes_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(HistoclickError, match="cannot be used"):
        Recipe(Folder(), **({"mpp": 1.0} | wrong))  # type: ignore[arg-type]
