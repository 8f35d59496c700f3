"""What a frozen encoder says is kept, for all eight views."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from fakes import make_samples
from histoclick.models.sam import network
from histoclick.patches import write_patch_set
from histoclick.train import embeddings
from histoclick.train.embeddings import embed
from histoclick.train.families.sam import SamTrainee
from histoclick.train.samples import Samples
from histoclick.train.settings import read_settings
from histoclick.types import HistoclickError

SIDE = 64


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    return Samples.read([write_patch_set(make_samples(3, SIDE), tmp_path / "set").folder])


@pytest.fixture(scope="module")
def trainee() -> SamTrainee:
    torch.manual_seed(0)
    model = network.assemble(network.Encoder(16, 1, 2, (0,)), 64)
    return SamTrainee(model, "vit_b", SIDE)


def test_they_are_what_the_encoder_says_of_the_batch(
    samples: Samples, trainee: SamTrainee, tmp_path: Path
) -> None:
    stored = embed(trainee, samples, tmp_path / "store", side_px=SIDE, weights="w")
    settings = read_settings(crop_px=SIDE, batch=4)
    for step in range(4):
        batch = samples.batch(settings, step, plain=True)
        for part in (slice(0, 4), slice(1, 3)):
            with torch.no_grad():
                expected = trainee.encode(batch.images[part])
            torch.testing.assert_close(stored(batch, part), expected, atol=2e-3, rtol=2e-3)
    assert (
        len({view for s in range(9) for view in samples.batch(settings, s, plain=True).views}) == 8
    )


def test_they_are_made_once_and_go_on(
    samples: Samples, trainee: SamTrainee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    encode = trainee.encode
    monkeypatch.setattr(trainee, "encode", lambda images: asked.append(1) or encode(images))
    folder = tmp_path / "store"

    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(embeddings, "SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        embed(trainee, samples, folder, side_px=SIDE, weights="w", seen=stop)
    assert len(asked) == 1 + 16  # one, to know the shape
    embed(trainee, samples, folder, side_px=SIDE, weights="w")
    assert len(asked) == 1 + 24
    before = (folder / "embeddings.npy").read_bytes()
    asked.clear()
    embed(trainee, samples, folder, side_px=SIDE, weights="w")
    assert not asked
    assert (folder / "embeddings.npy").read_bytes() == before
    asked.clear()
    embed(trainee, samples, folder, side_px=SIDE, weights="others")
    assert len(asked) == 1 + 24


def test_what_cannot_be_kept_is_told(
    samples: Samples, trainee: SamTrainee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HistoclickError, match="has 64x64 px and not 48x48"):
        embed(trainee, samples, tmp_path / "store", side_px=48, weights="w")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6))
    with pytest.raises(HistoclickError, match="--no-store"):
        embed(trainee, samples, tmp_path / "store", side_px=SIDE, weights="w")
