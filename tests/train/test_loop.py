"""The loop: exact resume, processes, precision, and everything that goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fakes import make_samples
from histoclick.models.card import Card
from histoclick.patches import write_patch_set
from histoclick.train.checkpoint import read_checkpoint
from histoclick.train.loop import Run, fit
from histoclick.train.losses import normalized_focal_loss
from histoclick.train.samples import Samples
from histoclick.train.settings import Machine, read_settings
from histoclick.train.trainee import Answer, Group, Scenario, Trainee
from histoclick.types import HistoclickError


class Toy(Trainee):
    """Two convolutions with a batch norm: everything that has state, in no time."""

    def __init__(self) -> None:
        self.scenarios = {
            "whole": Scenario("everything", lambda name: True),
            "head": Scenario("the last layer", lambda name: name.startswith("1.")),
        }
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1)
            ),
            nn.Conv2d(4, 1, 1),
        )

    def groups(self, scenario: str) -> list[Group]:
        return [Group([p for p in self.net.parameters() if p.requires_grad])]

    def encode(self, images: Tensor) -> Tensor:
        return images

    def answer(self, encoded: Tensor, points: Tensor, previous: Answer | None) -> Answer:
        before = torch.zeros_like(encoded[:, :1]) if previous is None else previous.memory
        maps = torch.zeros_like(encoded[:, :2])
        for user, rows in enumerate(points):
            for place, (y, x, _) in enumerate(rows.long().tolist()):
                if max(y, x) >= 0:
                    maps[user, int(place >= len(rows) // 2), y, x] = 1
        logits = self.net(torch.cat([encoded, maps, before], 1)).float()
        return Answer(logits, torch.sigmoid(logits))

    def loss(self, answer: Answer, targets: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        return normalized_focal_loss(answer.logits, targets)

    def save(self, folder: Path, card: Card) -> Card:
        raise NotImplementedError


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("sets") / "train"
    return Samples.read([write_patch_set(make_samples(7, 64), folder).folder])


def make(samples: Samples, folder: Path, scenario: str = "whole", **changes: object) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"crop_px": 48, "epochs": 3, "batch": 4, "milestones": (1, 2), "ema": 0.9} | changes
    settings = read_settings(**values)
    machine = Machine("cpu", save_every_s=0.0)
    return Run(Toy(), scenario, samples, settings, machine, folder, settings.facts)


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.trainee.net.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)


class Killed(Exception):
    """What ends a process in the middle."""


def looks() -> list[tuple[float, float]]:
    """Validation that is best in the middle, by its IoU."""
    return [(3.0, 0.5), (3.0, 0.7), (4.0, 0.9)]


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    samples: Samples, tmp_path: Path, at: int
) -> None:
    answers = iter(looks())
    whole = replace(make(samples, tmp_path / "whole"), validate=lambda: next(answers))
    end = fit(whole)
    assert (end.step, end.best, end.best_step) == (6, 3.0, 4)

    answers = iter(looks())
    run = replace(make(samples, tmp_path / "cut"), validate=lambda: next(answers))

    def kill(progress: object, loss: float) -> None:
        if progress.step == at:  # type: ignore[attr-defined]
            raise Killed

    with pytest.raises(Killed):
        fit(run, seen=kill)
    found = read_checkpoint(run.folder)
    assert (found is None) == (at == 1)  # the last step was not saved yet
    again = make(samples, tmp_path / "cut")
    done = found.progress.step if found else 0
    answers = iter(looks()[done // 2 :])
    again = replace(again, validate=lambda: next(answers))
    end = fit(again, found)
    assert (end.step, end.best, end.best_step) == (6, 3.0, 4)
    assert_same(weights(whole), weights(again))
    logs = [pd.read_csv(r.folder / "log.csv").drop(columns="minutes") for r in (whole, again)]
    pd.testing.assert_frame_equal(*logs)
    logs = [pd.read_csv(r.folder / "validation.csv") for r in (whole, again)]
    pd.testing.assert_frame_equal(*logs)


def test_a_session_ends_in_time_and_saves(samples: Samples, tmp_path: Path) -> None:
    run = make(samples, tmp_path)
    assert fit(run, session_s=0.0).step == 1
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.progress.step == 1
    end = fit(make(samples, tmp_path), found)
    assert end.step == 6


def test_what_is_frozen_does_not_change_to_the_bit(samples: Samples, tmp_path: Path) -> None:
    run = make(samples, tmp_path, "head")
    before = weights(run)
    fit(run)
    for name, value in weights(run).items():
        assert torch.equal(value, before[name]) != name.startswith("1."), name


def test_parts_of_a_batch_are_only_a_question_of_memory(samples: Samples, tmp_path: Path) -> None:
    runs = [make(samples, tmp_path / str(size), "head") for size in (0, 1, 3)]
    for run, size in zip(runs, (0, 1, 3), strict=True):
        run.trainee.net[0][3].p = 0.0  # dropout draws for each part anew
        fit(replace(run, machine=replace(run.machine, micro_batch=size)))
    for other in runs[1:]:
        for name, value in weights(runs[0]).items():
            torch.testing.assert_close(value, weights(other)[name], rtol=1e-4, atol=1e-6)


def test_rates_fall_at_the_milestones_of_the_paper(samples: Samples, tmp_path: Path) -> None:
    fit(make(samples, tmp_path))
    rates = pd.read_csv(tmp_path / "log.csv")["rate"].tolist()
    assert rates == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6])
    fit(make(samples, tmp_path / "cosine", schedule="cosine"))
    rates = pd.read_csv(tmp_path / "cosine/log.csv")["rate"]
    assert rates.is_monotonic_decreasing
    assert rates.iloc[0] == pytest.approx(5e-4)


def test_a_loss_that_is_no_number_stops_and_keeps_the_batch(
    samples: Samples, tmp_path: Path
) -> None:
    run = make(samples, tmp_path)
    with torch.no_grad():
        run.trainee.net[1].weight.fill_(torch.inf)
    with pytest.raises(HistoclickError, match="no number at step 0") as told:
        fit(run)
    path = next(tmp_path.glob("bad-batch-0.safetensors"))
    assert str(path) in str(told.value)
    kept = load_file(path)
    np.testing.assert_array_equal(kept["images"], samples.batch(run.settings, 0).images)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "--micro-batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "--micro-batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "--micro-batch"),
    ],
)
def test_memory_that_is_full_is_told(
    samples: Samples, tmp_path: Path, error: Exception, sentence: str
) -> None:
    run = make(samples, tmp_path)

    def fail(*_: object) -> Answer:
        raise error

    run.trainee.answer = fail  # type: ignore[method-assign]
    with pytest.raises(HistoclickError, match=sentence):
        fit(run)


def test_a_full_disk_is_told_and_leaves_the_old_checkpoint(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(make(samples, tmp_path), session_s=0.0)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(HistoclickError, match="make room"):
        fit(make(samples, tmp_path), read_checkpoint(tmp_path))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\3\4 nonsense")
    with pytest.raises(HistoclickError, match="damaged"):
        read_checkpoint(tmp_path)
    torch.save({"weights": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(HistoclickError, match="damaged"):
        read_checkpoint(tmp_path)


def test_bfloat16_learns_too(samples: Samples, tmp_path: Path) -> None:
    fit(make(samples, tmp_path, precision="bfloat16"))
    assert np.isfinite(pd.read_csv(tmp_path / "log.csv")["loss"]).all()


WORLD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r}); sys.path.insert(0, {train!r})
import torch; torch.set_num_threads(1)
import test_loop
from histoclick.train.loop import fit
from histoclick.train.samples import Samples
samples = Samples.read([Path({data!r})])
run = test_loop.make(samples, Path({out!r}), "head", augment=False)
run.trainee.net[0][3].p = 0.0
fit(run)
"""


def test_two_processes_have_the_loss_curve_of_one(samples: Samples, tmp_path: Path) -> None:
    data = write_patch_set(make_samples(7, 64), tmp_path / "set").folder
    here = Path(__file__).parent
    curves = []
    for processes in (1, 2):
        out = tmp_path / f"world-{processes}"
        script = tmp_path / f"world_{processes}.py"
        script.write_text(
            WORLD.format(tests=str(here.parent), train=str(here), data=str(data), out=str(out))
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        subprocess.run(
            [*command, f"--nproc-per-node={processes}", str(script)],
            check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        )  # fmt: skip
        curves.append(pd.read_csv(out / "log.csv")["loss"].to_numpy())
    assert len(curves[0]) == 6
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
