"""Measure a model of your own: two methods make a segmenter, one call makes a run."""

import tempfile
from pathlib import Path

import numpy as np

from histoclick import Prediction, Prompt
from histoclick.datasets.demo import demo_samples
from histoclick.evaluate import Protocol, evaluate
from histoclick.patches import write_patch_set
from histoclick.report import write_report


class DarkerThanTheClick:
    """Everything at least as dark as the last click: a model in two lines."""

    def encode(self, image):
        return image.mean(axis=2)

    def predict(self, encoded, prompt: Prompt, previous=None) -> Prediction:
        click = prompt.clicks[-1]
        return Prediction((encoded[int(click.y), int(click.x)] + 10 - encoded).astype(np.float32))


with tempfile.TemporaryDirectory() as folder:
    patches = write_patch_set(demo_samples(phantoms=2), Path(folder) / "patches")
    run = evaluate(
        DarkerThanTheClick(),
        patches,
        Path(folder) / "run",
        model={"id": "darker-than-the-click", "sha256": ""},
        machine={},
        protocol=Protocol(max_clicks=5),
    )
    print(write_report([run], Path(folder) / "page").markdown.read_text())
