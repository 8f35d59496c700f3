"""What an exported model saves: ``python benchmarks/light.py FOLDER`` beside the one it came from.

FOLDER: ``histoclick models export histoclick-tiny FOLDER``. One thread; a 400x400 px patch, clicks
of the simulated user. Both models answer in turn in one process; starts and memory are those of
processes of their own, also in turn. Times are those of the processor, medians: what others do on
the machine counts little, and neither does reading files, of which PyTorch has many.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

START = """
import json, resource, sys, time
begin = time.process_time()
import numpy as np
from pathlib import Path
from histoclick import Click, Prompt
from histoclick.models import registry
name = sys.argv[1]
model = registry.load(Path(name) if "/" in name else name, threads=1)
loaded = time.process_time() - begin
image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
model.predict(model.encode(image), Prompt((Click(200, 200),)))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
answer = {"load": loaded, "answer": time.process_time() - begin, "peak": peak}
print(json.dumps(answer | {"torch": "torch" in sys.modules}))
"""


def processes(models: list[str], times: int) -> dict[str, list[dict[str, float]]]:
    """What ``START`` tells of every model, ``times`` times."""
    found: dict[str, list[dict[str, float]]] = {model: [] for model in models}
    for _ in range(times):
        for model in models:
            done = subprocess.run(
                [sys.executable, "-c", START, model],
                capture_output=True, text=True, check=True, env={**os.environ},
            )  # fmt: skip
            found[model].append(json.loads(done.stdout))
    assert not any(each["torch"] for each in found[models[1]]), "the exported model loaded PyTorch"
    return found


def in_turn(models: list[str], rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of an encoding and of a click, medians."""
    import torch

    from histoclick.clicks import SimulatedUser
    from histoclick.datasets.phantom import phantom_patch
    from histoclick.models import registry
    from histoclick.types import Click, Prediction, Prompt

    torch.set_num_threads(1)
    sample = phantom_patch(3)
    loaded = [registry.load(Path(m) if "/" in m else m, threads=1) for m in models]
    clicks: tuple[Click, ...] = ()
    seconds: list[tuple[list[float], list[float]]] = [([], []) for _ in models]
    encoded = [model.encode(sample.image) for model in loaded]
    before: list[Prediction | None] = [None for _ in models]
    seen = sample.mask & False
    for turn in range(rounds):
        if turn % 10 == 0:
            clicks, before, seen = (), [None for _ in models], sample.mask & False
        clicks = (*clicks, SimulatedUser().click(sample.id, sample.mask, seen, clicks))
        for i, model in enumerate(loaded):
            begin = time.process_time()
            encoded[i] = model.encode(sample.image)
            middle = time.process_time()
            before[i] = model.predict(encoded[i], Prompt(clicks), before[i])
            end = time.process_time()
            seconds[i][0].append(middle - begin)
            seconds[i][1].append(end - middle)
        assert before[0] is not None
        seen = before[0].mask
    return {
        model: (1000 * statistics.median(encodes), 1000 * statistics.median(answers))
        for model, (encodes, answers) in zip(models, seconds, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", default="histoclick-tiny")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--starts", type=int, default=3)
    arguments = parser.parse_args()
    models = [arguments.base, str(arguments.folder.resolve())]
    told = processes(models, arguments.starts)
    speed = in_turn(models, arguments.rounds)
    print(
        "| | encode, ms | click, ms | import and load, s | until the first answer, s | peak, MB |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, model in zip(("torch", "onnxruntime"), models, strict=True):
        load, answer, peak = (
            statistics.median(each[key] for each in told[model])
            for key in ("load", "answer", "peak")
        )
        encode, click = speed[model]
        print(f"| {name} | {encode:.1f} | {click:.1f} | {load:.2f} | {answer:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
