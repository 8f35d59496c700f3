"""What many tests need: a tiny patch set, and where reference data may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fakes import make_samples
from histoclick.patches import PatchSet, write_patch_set

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data (golden numbers, real histology) that is not part of the project."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("HISTOCLICK_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set HISTOCLICK_SHARED")
    return folder


@pytest.fixture
def patch_set(tmp_path: Path) -> PatchSet:
    return write_patch_set(make_samples(5), tmp_path / "patches")
