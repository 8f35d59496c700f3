"""COCO's JSON, one image at a time.

COCO's polygons have no holes: objects with holes are written as run lengths, in whole pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from histoclick.annotations import colours, runs
from histoclick.annotations.document import Annotation, Canvas, Colour, Document, Shape
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.shapes import Gathering, box, counted, joined, polygons
from histoclick.annotations.sources import has_key, has_type, is_json, read_json
from histoclick.types import HistoclickError

DECIMALS = 2
MAX_PIXELS = 2**34  # of run lengths in one file: a minute
LARGEST = 2**32  # pixels that the usual library can count


def recognises(path: Path, head: bytes) -> bool:
    """By its lists of images or categories."""
    if not is_json(head) or has_type(head, "FeatureCollection"):
        return False
    return has_key(head, "images") or has_key(head, "categories", "annotations")


def read(path: Path, canvas: Canvas | None) -> Document:
    """The objects of the only image, or of the one whose file has the name of ``canvas``."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise HistoclickError(f"{path}: no COCO file, which is one object with 'annotations'")
    image = _image(_dicts(content.get("images")), path, canvas)
    categories = {c.get("id"): c for c in _dicts(content.get("categories")) if _hashable(c)}
    gathering = Gathering(path)
    pixels = 0
    for index, item in enumerate(_dicts(content.get("annotations"))):
        if image is not None and item.get("image_id") != image.get("id"):
            continue
        pixels += _extent(item)
        if pixels > MAX_PIXELS:
            raise HistoclickError(f"{path}: its masks have too many pixels; export polygons")
        _read_object(item, categories, gathering, f"annotation {index + 1}")
    return gathering.document(_canvas(image))


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """One image; a category for each class."""
    assert canvas is not None
    of_class, losses = colours.of_classes(document)
    labels = {label: index + 1 for index, label in enumerate(document.labels)}
    holed = [a for a in document.annotations if _has_holes(a.shape)]
    if holed:
        losses.append(
            f"{counted(len(holed), 'object')} with holes written as run lengths, in whole pixels: "
            "COCO's polygons have no holes"
        )
        if canvas.width * canvas.height >= LARGEST:
            losses.append(
                "the run lengths are those of an image of 2^32 pixels or more, which pycocotools "
                "cannot read"
            )
    image = {"id": 1, "file_name": canvas.name, "width": canvas.width, "height": canvas.height}
    head = {
        "images": [image],
        "categories": [
            {"id": id_, "name": label, "supercategory": "", "color": list(of_class[label])}
            for label, id_ in labels.items()
        ],
    }
    lost = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "annotations": [')
        separator = "\n"
        for index, annotation in enumerate(document.annotations):
            item = _item(annotation, index + 1, labels, canvas)
            if item is None:
                lost += 1
                continue
            file.write(separator + json.dumps(item))
            separator = ",\n"
        file.write("\n]}\n")
    if lost:
        losses.append(f"{counted(lost, 'object')} with holes around no pixel's centre: left out")
    return losses


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _hashable(item: dict[str, Any]) -> bool:
    return isinstance(item.get("id"), str | int)


def _image(
    images: list[dict[str, Any]], path: Path, canvas: Canvas | None
) -> dict[str, Any] | None:
    if len(images) < 2:
        return images[0] if images else None
    names = [str(image.get("file_name", "")) for image in images]
    wanted = canvas.name if canvas else ""
    for part in ("name", "stem"):
        same = [getattr(Path(name), part) == getattr(Path(wanted), part) for name in names]
        if wanted and sum(same) == 1:
            return images[same.index(True)]
    raise HistoclickError(
        f"{path}: about {len(images)} images ({', '.join(names[:3])}, ...)"
        f"{f', none of which is {wanted}' if wanted else ''}; name the slide it is wanted for "
        "(--slide)"
    )


def _canvas(image: dict[str, Any] | None) -> Canvas | None:
    width, height = (image or {}).get("width"), (image or {}).get("height")
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        return None
    return Canvas(width, height, name=str((image or {}).get("file_name", "")))


def _read_object(
    item: dict[str, Any], categories: dict[Any, dict[str, Any]], gathering: Gathering, where: str
) -> None:
    id_ = item.get("category_id")
    category = categories.get(id_, {}) if isinstance(id_, str | int) else {}
    name = category.get("name", "" if id_ is None else id_)
    if id_ is not None and "name" not in category:
        gathering.tell("read {} whose category is not declared", where)
    if item.get("keypoints"):
        gathering.tell("left out the keypoints of {}", where)
    colour: Colour | None = colours.parsed(category.get("color"))
    gathering.add(_shape(item, gathering, where), str(name), colour)


def _shape(item: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    segmentation, bbox = item.get("segmentation"), item.get("bbox")
    if isinstance(segmentation, dict):
        return _of_runs(segmentation, gathering, where)
    if isinstance(segmentation, list) and segmentation:
        flat = segmentation if isinstance(segmentation[0], list) else [segmentation]
        parts = [gathering.polygon(_pairs(ring), where=where) for ring in flat]
        pieces = [piece for part in parts if part is not None for piece in polygons(part)]
        return gathering.mended(joined(pieces), where) if pieces else None
    if isinstance(bbox, list) and len(bbox) == 4:
        gathering.tell("read {} without an outline as its box", where)
        try:
            x, y, width, height = (float(value) for value in bbox)
        except (TypeError, ValueError, OverflowError):
            gathering.skip("coordinates that are not numbers", where)
            return None
        return gathering.polygon(box(x, y, x + width, y + height), where=where)
    gathering.skip("neither an outline nor a box", where)
    return None


def _pairs(flat: Any) -> Any:
    """(N, 2) of x, y, x, y, ...; anything else is left for the shapes to refuse."""
    if not isinstance(flat, list) or len(flat) % 2:
        return [None]
    return [flat[index : index + 2] for index in range(0, len(flat), 2)]


def _counts(segmentation: dict[str, Any]) -> tuple[runs.Counts, int, int]:
    """(runs, width, height). Raises ``ValueError``."""
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(size, list) or len(size) != 2 or any(type(s) is not int for s in size):
        raise ValueError("run lengths without a size")
    height, width = size
    if isinstance(counts, str):
        if not counts.isascii():
            raise ValueError("compressed run lengths that are damaged")
        return runs.decoded(counts), width, height
    if not isinstance(counts, list) or any(
        type(c) is not int or not 0 <= c <= 2**40 for c in counts
    ):
        raise ValueError("run lengths that are not numbers")
    return np.array(counts, np.int64), width, height


def _extent(item: dict[str, Any]) -> int:
    segmentation = item.get("segmentation")
    if not isinstance(segmentation, dict):
        return 0
    try:
        counts, _, height = _counts(segmentation)
    except ValueError:
        return 0
    return runs.extent(counts, height)


def _of_runs(segmentation: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    try:
        found = runs.polygons(*_counts(segmentation))
    except ValueError as error:
        gathering.skip(str(error), where)
        return None
    if not found:
        gathering.skip("an empty mask", where)
        return None
    return gathering.mended(joined(found), where)


def _has_holes(shape: Shape) -> bool:
    return any(part.interiors for part in polygons(shape))


def _item(
    annotation: Annotation, id_: int, labels: dict[str, int], canvas: Canvas
) -> dict[str, Any] | None:
    shape = annotation.shape
    assert isinstance(shape, Polygon | MultiPolygon)
    x0, y0, x1, y1 = shape.bounds
    segmentation: Any = [_flat(part) for part in polygons(shape)]
    area, bbox = float(shape.area), [x0, y0, x1 - x0, y1 - y0]
    if _has_holes(shape):
        counts = runs.of_shape(shape, canvas.width, canvas.height)
        area = float(counts[1::2].sum())
        if not area:
            return None
        segmentation = {"size": [canvas.height, canvas.width], "counts": runs.encoded(counts)}
    return {
        "id": id_,
        "image_id": 1,
        "category_id": labels[annotation.label],
        "segmentation": segmentation,
        "area": round(area, DECIMALS),
        "bbox": [round(value, DECIMALS) for value in bbox],
        "iscrowd": 0,
    }


def _flat(part: Polygon) -> list[float]:
    vertices = np.round(shapely.get_coordinates(part.exterior)[:-1], DECIMALS) + 0.0
    flat: list[float] = vertices.reshape(-1).tolist()
    return flat


COCO = Format(
    name="coco",
    title="COCO JSON",
    suffixes=(".json",),
    decimals=DECIMALS,
    holds=frozenset(
        {Holds.HOLES, Holds.PARTS, Holds.LABELS, Holds.COLOURS, Holds.OBJECTS, Holds.OVERLAPS}
    ),
    recognises=recognises,
    read=read,
    write=write,
    needs_canvas=True,
)
