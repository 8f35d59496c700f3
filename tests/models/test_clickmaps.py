"""Clicks as points and as maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import golden
from histoclick.models.clickmaps import disks, pack, pad
from histoclick.types import Click

clicks = st.lists(
    st.builds(
        Click, st.floats(-0.5, 19.5, width=32), st.floats(-0.5, 14.5, width=32), st.booleans()
    ),
    max_size=6,
)


def test_positives_come_first_and_both_halves_are_filled_up() -> None:
    points = pack([Click(3, 4), Click(5, 6, positive=False), Click(7, 8.5)])
    absent = [-1.0, -1.0, -1.0]
    assert points.tolist() == [[[4, 3, 0], [8.5, 7, 2], [6, 5, 1], absent]]
    assert pack([]).tolist() == [[absent, absent]]


@given(st.lists(clicks, min_size=1, max_size=3))
def test_padding_changes_no_map(users: list[list[Click]]) -> None:
    together = disks(pad([pack(user) for user in users]), 15, 20, 3)
    for user, maps in zip(users, together, strict=True):
        assert torch.equal(maps, disks(pack(user), 15, 20, 3)[0])


@settings(max_examples=30)
@given(clicks, st.sampled_from([0.0, 1.0, 2.5, 5.0]))
def test_a_disk_is_every_pixel_within_the_radius(user: list[Click], radius: float) -> None:
    maps = disks(pack(user), 15, 20, radius)[0]
    shown = [click for click in user if max(click.x, click.y) >= 0]
    for half, positive in zip(maps, (True, False), strict=True):
        covered = np.zeros((15, 20), bool)
        for row, column in np.ndindex(15, 20):
            for click in shown:
                away = np.float32(row - np.float32(click.y)) ** 2
                away = away + np.float32(column - np.float32(click.x)) ** 2
                covered[row, column] |= click.positive == positive and away <= radius**2
        np.testing.assert_array_equal(half.numpy() > 0, covered)
        assert set(half.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_reference(shared: Path, radius: int) -> None:
    arrays = golden.arrays(shared / "conformance/ritm/distmaps.npz")
    found = disks(torch.from_numpy(arrays["points"]), 48, 64, radius)
    np.testing.assert_array_equal(found.numpy() > 0, arrays[f"disk_r{radius}"])
