"""Writing a model as two ONNX graphs. Needs PyTorch, and the packages of ``histoclick[onnx]``."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import histoclick
from histoclick.files import sha256
from histoclick.models.card import Card
from histoclick.models.graphs import Graphs
from histoclick.models.onnx.segmenter import DECODER, ENCODER
from histoclick.types import HistoclickError

OPSET = 18  # which browsers' onnxruntime knows as well
TRACED = (5, 7)  # sides of the picture that is traced, in multiples; others work as well
CLICKS = 6  # that are traced


def export(card: Card, folder: Path, graphs: Graphs, out: Path) -> Path:
    """Write the model ``folder`` of ``card`` and ``graphs`` to the new folder ``out``, whole or not
    at all. Returns it.

    Raises ``HistoclickError`` where a folder is already, or a package is missing.
    """
    if out.exists():
        raise HistoclickError(f"{out}: exists already; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as partial:
        made = Path(partial) / out.resolve().name
        made.mkdir()
        write_graphs(graphs, made)
        if (slides := folder / "training" / "slides.json").is_file():  # not to be evaluated on
            (made / "training").mkdir()
            shutil.copyfile(slides, made / "training" / slides.name)
        exported(card, graphs, made).write(made)
        made.rename(out)
    return out


def exported(card: Card, graphs: Graphs, folder: Path) -> Card:
    """The card of the graphs in ``folder``. What was measured was measured with others."""
    files = [folder / ENCODER, folder / DECODER]
    origin = f"{card.id}, weights SHA-256 {card.sha256}"
    return dataclasses.replace(
        card,
        id=folder.name,
        family="onnx",
        architecture=f"{card.family}/{card.architecture}",
        origin=f"{card.origin}; exported from {origin}",
        sha256=hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest(),
        default=False,
        measured=(),
        notes=(*card.notes, f"Exported by histoclick {histoclick.__version__} from {origin}."),
        graphs={
            "weights_sha256": card.sha256,
            "stride": graphs.stride,
            "multiple": graphs.multiple,
            "maps": dict(graphs.maps),
            "rules": dataclasses.asdict(graphs.rules),
            "sha256": {file.name: sha256(file) for file in files},
        },
    )


def write_graphs(graphs: Graphs, folder: Path) -> None:
    """``encoder.onnx`` and ``decoder.onnx``, for pictures of any size and any number of clicks."""
    height, width, many = (torch.export.Dim(name, min=1, max=4096) for name in ("h", "w", "n"))

    def sides(stride: int) -> tuple[Any, Any]:
        each = graphs.multiple // stride
        return each * height, each * width

    rows, columns = (graphs.multiple * side for side in TRACED)
    image = torch.arange(rows * columns * 3).remainder(251).to(torch.uint8)
    image = image.view(1, rows, columns, 3)
    with torch.inference_mode():
        maps = graphs.encoder.eval()(image)
    maps = tuple(each.clone() for each in maps)
    write(
        graphs.encoder, {"picture": image}, [dict(enumerate(sides(1), 1))], [*graphs.maps],
        folder / ENCODER,
    )  # fmt: skip
    scene = dict(zip(graphs.maps, maps, strict=True))
    scene["clicks"] = torch.tensor([[[9.0 * i, 8.0 * i, 1 - 2 * (i % 2)] for i in range(CLICKS)]])
    scene["before"] = torch.zeros(1, 1, rows // graphs.stride, columns // graphs.stride)
    scene["begun"] = torch.ones(1)
    shapes: list[dict[int, Any] | None] = [
        dict(enumerate(sides(stride), 2)) for stride in graphs.maps.values()
    ]
    shapes += [{1: many}, dict(enumerate(sides(graphs.stride), 2)), None]
    answers = ["logits", "quality"] if graphs.quality else ["logits"]
    write(graphs.decoder.eval(), scene, shapes, answers, folder / DECODER)


def write(
    module: nn.Module,
    inputs: dict[str, Tensor],
    shapes: Sequence[dict[int, Any] | None],
    outputs: Sequence[str],
    path: Path,
) -> None:
    """One graph. ``inputs``: by name, of sizes that are traced; ``shapes``: which of their sides
    vary."""
    # Both warn about packages and classes of theirs, never about the model.
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.export.export(
                module, tuple(inputs.values()), dynamic_shapes=tuple(shapes), strict=False
            )
            graph = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=[*inputs], output_names=[*outputs],
            )  # fmt: skip
            assert graph is not None
            graph.save(path, external_data=False)
    except ImportError as error:
        raise HistoclickError(
            f"an export takes the package {error.name}; pip install 'histoclick[onnx]'"
        ) from None
    finally:
        noisy.setLevel(level)
