"""Make the README's picture: what the built-in model does on three generated patches."""

import tempfile
from pathlib import Path

from PIL import Image

from histoclick.cli import run_evaluation
from histoclick.datasets.phantom import phantom_patch
from histoclick.patches import write_patch_set
from histoclick.report import write_report

SEEDS = (0, 1, 2)

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    patches = write_patch_set(map(phantom_patch, SEEDS), folder / "phantoms")
    run_evaluation(None, patches, folder / "run", device="cpu")
    strips = write_report([folder / "run"], folder / "page").strips
    picture = Image.open(str(strips)).convert("RGB")
    picture.thumbnail((1500, 1500))
    picture.save(Path(__file__).with_name("strips.jpg"), quality=85)
