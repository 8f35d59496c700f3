"""Every family can learn eight real patches by heart: the smallest member, from random weights.

Clicks are answered by the network as it is trained, without the zoom of its segmenter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from histoclick import metrics
from histoclick.models.clickmaps import pack
from histoclick.patches import open_patch_set
from histoclick.train.loop import Run, fit
from histoclick.train.samples import Samples
from histoclick.train.settings import Machine, read_settings
from histoclick.train.trainee import Trainee
from histoclick.trajectory import trajectory
from histoclick.types import RGB8, Prediction, Prompt, Sample
from trainees import make

SIDE = 96
MEMBERS = [
    ("denseclick", "", "whole"),
    ("ritm", "hrnet18s", "whole"),
    ("focalclick", "segformerB0_S2", "whole"),
    ("simpleclick", "xtiny448", "whole"),
    ("sam", "tiny", "whole"),  # at 256 px
    ("sam", "tiny-refine", "whole"),
]


class Direct:
    """A trainee as a segmenter."""

    def __init__(self, trainee: Trainee) -> None:
        self._trainee = trainee

    @torch.no_grad()
    def encode(self, image: RGB8) -> Any:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        return self._trainee.encode(pixels)

    @torch.no_grad()
    def predict(
        self, encoded: Any, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        before = None if previous is None else previous.memory
        answer = self._trainee.answer(encoded, pack(prompt.clicks), before)
        return Prediction(answer.logits[0, 0].numpy(), answer)


def eight(shared: Path) -> Samples:
    """Patches of a colon, smaller."""
    folder = shared / "data/histology/redistributable/ebhi224_colon/train"
    samples = []
    for patch in open_patch_set(folder).first(8):
        sample = patch.read()
        image = cv2.resize(sample.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(sample.mask.astype(np.float32), (SIDE, SIDE)) > 0.5
        samples.append(Sample(sample.id, np.asarray(image, np.uint8), mask, sample.slide))
    return Samples(tuple(samples), ("eight",), frozenset(), "")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "architecture", "scenario"), MEMBERS)
def test_eight_patches_are_learnt_by_heart(
    shared: Path, tmp_path: Path, family: str, architecture: str, scenario: str
) -> None:
    samples = eight(shared)
    trainee = make(family, architecture, scenario)
    settings = read_settings(
        crop_px=SIDE, epochs=400, batch=8, rate=1e-3, schedule="cosine", augment=False,
        first_points=1, next_clicks=3, clip=1.0, max_minutes=8.0,
    )  # fmt: skip
    run = Run(trainee, scenario, samples, settings, Machine(), tmp_path, {})
    fit(run)
    ious = np.ones((8, 20))
    for row, sample in zip(ious, samples.samples, strict=True):
        steps = [step.iou for step in trajectory(Direct(trainee), sample, 20)]
        row[: len(steps)] = steps
    noc = metrics.noc(ious, 0.90, 20)
    print(f"{family} {architecture}: NoC@90 {noc:.2f}, first IoU {ious[:, 0].mean():.3f}")
    assert noc < 3
