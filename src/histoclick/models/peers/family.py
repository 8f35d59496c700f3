"""The peers for the registry: load a model folder, import a folder of the Hugging Face Hub.

Both hold ``config.json``, the numbers that build the network, and ``preprocessor_config.json``, the
mean and standard deviation of its training images. Nothing is fetched, and nothing in a folder is
executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging

from histoclick.files import sha256
from histoclick.models.card import Card, check_architecture
from histoclick.models.peers.kinds import KINDS, VIDEO, Colour
from histoclick.models.peers.segmenter import PeerSegmenter, side_px
from histoclick.models.weights import check_keys, read_state_dict, write_safetensors
from histoclick.types import HistoclickError

PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
# What in a configuration names code or other files, or says how to compute.
FOREIGN = {
    "_attn_implementation",
    "attn_implementation",
    "auto_map",
    "checkpoint_path",
    "pretrained_cfg",
    "quantization_config",
}


def load(card: Card, folder: Path, device: str) -> PeerSegmenter:
    """The segmenter of a model folder."""
    type_, config = _read_config(folder)
    if card.architecture != type_:
        raise HistoclickError(
            f"{folder}: card.toml says '{card.architecture}' and config.json '{type_}'; import the "
            "model again"
        )
    mean, std = _colours(folder, type_, config)
    model = _build(type_, config, folder / "weights.safetensors")
    return PeerSegmenter(model, KINDS[type_], mean, std, device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import ``file``, a Hub folder: recognised by its ``config.json`` and checked strictly.

    Of a model for videos, the part that segments images is kept.
    """
    if not file.is_dir():
        raise HistoclickError(f"{file}: no folder; give one with config.json and model.safetensors")
    type_, config = _read_config(file)
    mean, std = _colours(file, type_, config)
    source = file / "model.safetensors"
    if not source.is_file():
        raise HistoclickError(
            f"{file}: no model.safetensors inside; save the model as one such file (pickles and "
            "weights in pieces are not read)"
        )
    model = _build(type_, config, source)
    weights = folder / "weights.safetensors"
    write_safetensors(model.state_dict(), weights)
    _write_json(folder / "config.json", model.config.to_dict())
    _write_json(folder / "preprocessor_config.json", {"image_mean": mean, "image_std": std})
    kind, name = KINDS[type_], file.resolve().name
    return Card(
        id=id_,
        family="peer",
        architecture=type_,
        summary=f"{kind.title}, imported from {name}.",
        licence=f"{kind.licence} (official weights; check the origin of other files)",
        origin=f"{name}/{source.name}, SHA-256 {sha256(source)}",
        sha256=sha256(weights),
        input_size=side_px(config.prompt_encoder_config.image_size),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def draw(architecture: str, folder: Path) -> Path:
    """A Hub folder of a network that learned nothing, of transformers' default size."""
    check_architecture(architecture, KINDS, "peer")
    kind = KINDS[architecture]
    with _silence(), _understood(folder / "config.json", kind.title):
        config = getattr(transformers, f"{kind.classes}Config")()
        getattr(transformers, f"{kind.classes}Model")(config).save_pretrained(folder / architecture)
    return folder / architecture


def _read_config(folder: Path) -> tuple[str, Any]:
    """Model type, a key of ``KINDS``, and transformers' configuration."""
    path = folder / "config.json"
    values = _read_json(path)
    found = str(values.get("model_type"))
    type_ = VIDEO.get(found, found)
    if type_ not in KINDS:
        known = ", ".join([*KINDS, *VIDEO])
        raise HistoclickError(f"{path}: model type '{found}' is not of this family; known: {known}")
    values = values.get("tracker_config") or values  # SAM 3: one of two models in the folder
    with _understood(path, KINDS[type_].title):
        parts = {name: _plain(values[name]) for name in PARTS if name in values}
        return type_, getattr(transformers, f"{KINDS[type_].classes}Config")(**parts)


def _plain(values: Any) -> Any:
    """Numbers and names that build a network, without addresses and what is ``FOREIGN``."""
    if not isinstance(values, dict):
        return values
    return {
        name: _plain(value)
        for name, value in values.items()
        if name not in FOREIGN and not (isinstance(value, str) and set(":/") & set(value))
    }


@contextmanager
def _understood(path: Path, title: str) -> Iterator[None]:
    """Whatever transformers makes of a strange ``config.json``, in one sentence."""
    try:
        yield
    except ImportError:
        raise HistoclickError(
            f"{path}: the image encoder of {title} needs timm and torchvision; "
            "pip install 'histoclick[edgetam]'"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())
        raise HistoclickError(
            f"{path}: not a configuration of {title} ({reason}); fetch it again"
        ) from error


def _build(type_: str, config: Any, file: Path) -> Any:
    """The model, float32 on the CPU. Raises ``HistoclickError`` unless ``file`` fits exactly."""
    state = read_state_dict(file)
    with _silence(), _understood(file.with_name("config.json"), KINDS[type_].title):
        model, told = getattr(transformers, f"{KINDS[type_].classes}Model").from_pretrained(
            None,  # no place to fetch anything from
            config=config,
            state_dict=state,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
        )
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: shape for name, shape in expected.items() if name not in told["missing_keys"]}
    found |= {name: tuple(shape) for name, shape, _ in told["mismatched_keys"]}
    found |= dict.fromkeys(told["unexpected_keys"], ())
    check_keys(found, expected, str(file))
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """No progress bars and reports of transformers: what is wrong is said in one sentence."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _colours(folder: Path, type_: str, config: Any) -> tuple[Colour, Colour]:
    """Mean and standard deviation that ``folder`` gives, else those of the kind.

    Raises ``HistoclickError`` where it asks for images of another size than the network takes.
    """
    names = ("preprocessor_config.json", "processor_config.json")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    values = {} if path is None else _read_json(path)
    values = values.get("image_processor", values)
    kind, side = KINDS[type_], side_px(config.prompt_encoder_config.image_size)
    try:
        sides = set(dict(values.get("size") or {}).values())
        mean = tuple(map(float, values.get("image_mean") or kind.mean))
        std = tuple(map(float, values.get("image_std") or kind.std))
    except (TypeError, ValueError, AttributeError) as error:
        raise HistoclickError(f"{path}: not understood ({error}); fetch it again") from None
    if not sides <= {side, None} or not len(mean) == len(std) == 3:
        raise HistoclickError(
            f"{path}: not for this network, which takes images of {side} px and three colours; "
            "fetch the folder again"
        )
    return mean, std


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise HistoclickError(
            f"{path}: missing or not readable; give a folder with config.json and model.safetensors"
        ) from None
    except ValueError as error:
        raise HistoclickError(f"{path}: not valid JSON ({error}); fetch it again") from None
    if not isinstance(values, dict):
        raise HistoclickError(f"{path}: holds no named values; fetch it again")
    return values


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
