"""Aperio ImageScope's XML, which PAIP2019 uses: layers of regions, some of them negative."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from histoclick.annotations import colours
from histoclick.annotations.document import Annotation, Canvas, Colour, Document, Shape
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.holes import Hole, Outline, cut, shaped
from histoclick.annotations.shapes import Gathering, box, ellipse
from histoclick.annotations.sources import number, read_xml, root

DECIMALS = 4
DESCRIPTION = "Description"  # an attribute that every layer has; the class is not its name
NO_CLASS = "no class"  # its value in layers that are written for objects without a class
RECTANGLE, ELLIPSE, ARROW, RULER = "1", "2", "3", "4"


@dataclass
class _Region:
    kind: str
    name: str
    negative: bool
    id: str
    owner: str
    where: str
    x: array[float] = field(default_factory=lambda: array("d"))
    y: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class _Layer:
    """``attributes``: (name, value) of the layer, which some programs name it by."""

    id: str
    name: str
    colour: Colour | None
    attributes: list[tuple[str, str]] = field(default_factory=list)
    regions: list[_Region] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The class: the name, else an attribute, else the Id, which is what PAIP2019 goes by."""
        if self.name:
            return self.name
        for name, value in self.attributes:
            if name == DESCRIPTION and value:
                return "" if value == NO_CLASS else value
            if name and name != DESCRIPTION:
                return name
        return self.id


def recognises(path: Path, head: bytes) -> bool:
    """By the root element."""
    return root(head) == "Annotations"


def read(path: Path, canvas: Canvas | None) -> Document:
    """Regions in the order of the file; negative ones are holes in others of their layer."""
    gathering = Gathering(path)
    for layer in _parsed(path):
        objects: list[tuple[_Region, Outline]] = []
        by_id: dict[str, Outline] = {}
        holes = []
        for region in layer.regions:
            shape = _shape(region, gathering)
            if shape is None:
                continue
            if region.negative and isinstance(shape, Polygon | MultiPolygon):
                holes.append((shape, region.owner))
            else:
                by_id[region.id] = Outline(shape)
                objects.append((region, by_id[region.id]))
        owned = [Hole(shape, by_id.get(owner)) for shape, owner in holes]
        cut([outline for _, outline in objects], owned, gathering)
        for region, outline in objects:
            shape = shaped(outline, gathering, region.where)
            gathering.add(shape, layer.label, layer.colour, region.name)
    return gathering.document()


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """A layer for each class and colour, holes after the outline that they are cut from."""
    layers: dict[tuple[str, Colour], list[Annotation]] = {}
    for annotation in document.annotations:
        colour = annotation.colour or colours.default(annotation.label)
        layers.setdefault((annotation.label, colour), []).append(annotation)
    mpp = canvas.mpp if canvas else None
    scale = f' MicronsPerPixel="{mpp:.6f}"' if mpp else ""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<Annotations{scale}>\n')
        for index, ((label, colour), annotations) in enumerate(layers.items()):
            description = "" if label else NO_CLASS
            file.write(
                f' <Annotation Id="{index + 1}" Name="{escape(label)}" ReadOnly="0" '
                'NameReadOnly="0" LineColorReadOnly="0" Incremental="0" Type="4" '
                f'LineColor="{colours.to_bgr(colour)}" Visible="1" Selected="0" '
                'MarkupImagePath="" MacroName="">\n  <Attributes>\n'
                f'   <Attribute Name="{DESCRIPTION}" Id="0" Value="{description}" />\n'
                "  </Attributes>\n  <Regions>\n   <RegionAttributeHeaders />\n"
            )
            count = 0
            for annotation in annotations:
                assert isinstance(annotation.shape, Polygon)
                owner = count + 1
                for ring in (annotation.shape.exterior, *annotation.shape.interiors):
                    count += 1
                    file.write(
                        _element(count, ring, annotation.name, 0 if count == owner else owner, mpp)
                    )
            file.write("  </Regions>\n  <Plots />\n </Annotation>\n")
        file.write("</Annotations>\n")
    return []


def _parsed(path: Path) -> list[_Layer]:
    layers: list[_Layer] = []
    inside: list[str] = []  # the elements around this one
    for depth, tag, attributes in read_xml(path, "Vertex"):
        inside[depth:] = [tag]
        if tag == "Annotation":
            colour = attributes.get("LineColor", "")
            layers.append(
                _Layer(
                    attributes.get("Id", ""),
                    attributes.get("Name", "").strip(),
                    colours.from_bgr(int(colour)) if colour.isdecimal() else None,
                )
            )
        elif not layers:
            continue
        elif tag == "Attribute" and inside[-3:-1] == ["Annotation", "Attributes"]:
            pair = attributes.get("Name", "").strip(), attributes.get("Value", "").strip()
            layers[-1].attributes.append(pair)
        elif tag == "Region":
            layers[-1].regions.append(
                _Region(
                    attributes.get("Type", "0"),
                    attributes.get("Text", ""),
                    attributes.get("NegativeROA", "0") == "1",
                    attributes.get("Id", ""),
                    attributes.get("InputRegionId", "0"),
                    f"region {attributes.get('Id', '')} of layer {layers[-1].id}",
                )
            )
        elif tag == "Vertex" and layers[-1].regions:
            region = layers[-1].regions[-1]
            region.x.append(number(attributes.get("X", "")))
            region.y.append(number(attributes.get("Y", "")))
    return layers


def _shape(region: _Region, gathering: Gathering) -> Shape | None:
    vertices, where = np.stack([region.x, region.y], axis=1), region.where
    if region.kind in (ARROW, RULER):
        return gathering.line(vertices, where)
    if region.kind == RECTANGLE and len(vertices) == 2:
        return gathering.polygon(box(*vertices.ravel()), where=where)
    if region.kind == ELLIPSE and 2 <= len(vertices) <= 4:
        (x0, y0), (x1, y1) = vertices.min(axis=0), vertices.max(axis=0)
        gathering.tell("read {} as polygons", where, "ellipse")
        curve = ellipse((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2)
        return gathering.polygon(curve, where=where)
    return gathering.polygon(vertices, where=where)


def _element(
    number: int, ring: shapely.LinearRing, name: str, owner: int, mpp: float | None
) -> str:
    """``owner``: the number of the region that this one is a hole of; 0 for none."""
    area, length = Polygon(ring).area, ring.length
    scale = mpp or 0.0
    vertices = "".join(
        f'     <Vertex X="{x:.{DECIMALS}f}" Y="{y:.{DECIMALS}f}" Z="0" />\n'
        for x, y in shapely.get_coordinates(ring)[:-1].tolist()
    )
    return (
        f'   <Region Id="{number}" Type="0" Zoom="1" Selected="0" ImageLocation="" '
        f'ImageFocus="-1" Length="{length:.1f}" Area="{area:.1f}" '
        f'LengthMicrons="{length * scale:.1f}" AreaMicrons="{area * scale**2:.1f}" '
        f'Text="{escape(name)}" NegativeROA="{int(owner > 0)}" InputRegionId="{owner}" '
        f'Analyze="1" DisplayId="{number}">\n    <Attributes />\n    <Vertices>\n{vertices}'
        "    </Vertices>\n   </Region>\n"
    )


APERIO = Format(
    name="aperio",
    title="Aperio ImageScope XML",
    suffixes=(".xml",),
    decimals=DECIMALS,
    holds=frozenset(Holds) - {Holds.PARTS, Holds.POINTS, Holds.POINT_SETS, Holds.LINES},
    recognises=recognises,
    read=read,
    write=write,
)
