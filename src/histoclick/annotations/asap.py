"""ASAP's XML, which CAMELYON16 and many others use.

ASAP has no holes. They are written, and read, as polygons of a group "<class> hole" that is part
of the group of the class, after the outline that they are cut from.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from histoclick.annotations import colours
from histoclick.annotations.document import Canvas, Colour, Document, Shape
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.holes import Hole, Outline, cut, shaped
from histoclick.annotations.shapes import Gathering, Vertices, box, counted
from histoclick.annotations.sources import number, read_xml, root

DECIMALS = 4
NO_GROUP = "None"  # what ASAP writes where there is no group
HOLE = " hole"
UNNAMED = re.compile(r"Annotation \d+")  # what ASAP calls what nobody has named


@dataclass
class _Drawn:
    """One ``<Annotation>`` as it stands in the file."""

    name: str
    kind: str
    group: str
    colour: Colour | None
    where: str
    orders: list[str] = field(default_factory=list)
    x: array[float] = field(default_factory=lambda: array("d"))
    y: array[float] = field(default_factory=lambda: array("d"))


@dataclass(frozen=True)
class _Group:
    parent: str
    colour: Colour | None


def recognises(path: Path, head: bytes) -> bool:
    """By the root element."""
    return root(head) == "ASAP_Annotations"


def read(path: Path, canvas: Canvas | None) -> Document:
    """Objects in the order of the file; the group is the class."""
    drawings, groups = _parsed(path)
    gathering = Gathering(path)
    if undeclared := {d.group for d in drawings} - set(groups) - {NO_GROUP}:
        gathering.tell("read {} that the file uses but does not declare; ASAP would refuse it",
                       min(undeclared), "group", len(undeclared))  # fmt: skip
    of_holes = {name for name, group in groups.items() if _is_hole(name, group.parent)}
    if nested := sum(
        g.parent not in ("", NO_GROUP) for n, g in groups.items() if n not in of_holes
    ):
        gathering.tell("read {} inside others as plain classes", "", "group", nested)
    objects: list[tuple[_Drawn, Outline]] = []
    last: dict[str, tuple[_Drawn, Outline]] = {}  # of each group
    holes: dict[str, list[Hole]] = {}
    for drawn in drawings:
        shape = _shape(drawn, gathering)
        if shape is None:
            continue
        if drawn.group in of_holes and isinstance(shape, Polygon | MultiPolygon):
            group = groups[drawn.group].parent or NO_GROUP
            before = last.get(group)
            owned = before is not None and drawn.name == before[0].name + HOLE
            owner = before[1] if before and owned else None
            holes.setdefault(group, []).append(Hole(shape, owner))
        else:
            last[drawn.group] = drawn, Outline(shape)
            objects.append(last[drawn.group])
    for group, cuts in holes.items():
        cut([outline for drawn, outline in objects if drawn.group == group], cuts, gathering)
    of_group: dict[str, set[Colour | None]] = {}
    for drawn, _ in objects:
        of_group.setdefault(drawn.group, set()).add(drawn.colour)
    if mixed := [group for group, found in of_group.items() if len(found) > 1]:
        gathering.tell("left out the own colours of the objects in {}: the group's is kept",
                       mixed[0], "group", len(mixed))  # fmt: skip
    for drawn, outline in objects:
        declared = groups.get(drawn.group)
        colour = declared.colour if declared and declared.colour else drawn.colour
        label = "" if drawn.group == NO_GROUP else drawn.group
        name = "" if UNNAMED.fullmatch(drawn.name) else drawn.name
        gathering.add(shaped(outline, gathering, drawn.where), label, colour, name)
    return gathering.document()


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """Groups for all classes, in the form that ASAP's own loader accepts."""
    groups, hole_groups, losses = _groups(document)
    of_class, said = colours.of_classes(
        replace(document, annotations=tuple(a for a in document.annotations if a.label))
    )
    losses += said
    holes = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0"?>\n<ASAP_Annotations>\n\t<Annotations>\n')
        for index, annotation in enumerate(document.annotations):
            name = annotation.name or f"Annotation {index}"
            group = groups[annotation.label]
            colour = annotation.colour or colours.default(annotation.label)
            shape = annotation.shape
            file.write(_element(name, _kind(shape), group, colour, _vertices(shape)))
            for ring in shape.interiors if isinstance(shape, Polygon) else ():
                hole_group = hole_groups[annotation.label]
                file.write(_element(name + HOLE, "Polygon", hole_group, colour, _vertices(ring)))
                holes += 1
        file.write("\t</Annotations>\n\t<AnnotationGroups>\n")
        for label, group in groups.items():
            colour = of_class.get(label, colours.default(label))
            if group != NO_GROUP:
                file.write(_group(group, NO_GROUP, colour))
            if label in hole_groups:
                file.write(_group(hole_groups[label], group, colour))
        file.write("\t</AnnotationGroups>\n</ASAP_Annotations>\n")
    if holes:
        names = ", ".join(f"'{name}'" for name in list(hole_groups.values())[:5])
        losses.append(
            f"{counted(holes, 'hole')} written as objects of the group {names}: histoclick reads "
            "holes again, other programs see objects"
        )
    return losses


def _parsed(path: Path) -> tuple[list[_Drawn], dict[str, _Group]]:
    drawings: list[_Drawn] = []
    groups: dict[str, _Group] = {}
    for _, tag, attributes in read_xml(path, "Coordinate"):
        if tag == "Annotation":
            drawings.append(
                _Drawn(
                    attributes.get("Name", ""),
                    attributes.get("Type", ""),
                    attributes.get("PartOfGroup", NO_GROUP) or NO_GROUP,
                    colours.parsed(attributes.get("Color")),
                    f"annotation {len(drawings) + 1}",
                )
            )
        elif tag == "Coordinate" and drawings:
            drawn = drawings[-1]
            drawn.orders.append(attributes.get("Order", ""))
            drawn.x.append(number(attributes.get("X", "")))
            drawn.y.append(number(attributes.get("Y", "")))
        elif tag == "Group":
            parent, colour = attributes.get("PartOfGroup", ""), attributes.get("Color")
            groups[attributes.get("Name", "")] = _Group(parent, colours.parsed(colour))
    return drawings, groups


def _shape(drawn: _Drawn, gathering: Gathering) -> Shape | None:
    vertices = _vertices_of(drawn, gathering)
    if drawn.kind == "Dot" or drawn.kind == "PointSet":
        if drawn.kind == "Dot" and len(vertices) > 1:
            gathering.tell("read {} of several vertices as several points", drawn.where, "dot")
        return gathering.points(vertices, drawn.where)
    if drawn.kind == "Measurement":
        return gathering.line(vertices, drawn.where)
    if drawn.kind == "Rectangle" and len(vertices) == 2:
        return gathering.polygon(box(*vertices.ravel()), where=drawn.where)
    if drawn.kind == "Spline":
        gathering.tell("read {} as polygons through their vertices", drawn.where, "spline")
    elif drawn.kind not in ("Polygon", "Rectangle"):
        gathering.tell("read {} of unknown types as polygons", drawn.where)
    return gathering.polygon(vertices, where=drawn.where)


def _vertices_of(drawn: _Drawn, gathering: Gathering) -> Vertices:
    """(N, 2), in the order that the file asks for."""
    vertices = np.stack([drawn.x, drawn.y], axis=1)
    if drawn.orders == list(map(str, range(len(vertices)))):
        return vertices
    try:
        orders = np.array(drawn.orders, np.int64)
    except (ValueError, OverflowError):
        orders = np.zeros(0, np.int64)
    if len(np.unique(orders)) < len(vertices):
        gathering.tell("read {} without a proper order of vertices as the file has it", drawn.where)
        return vertices
    return vertices[np.argsort(orders)]


def _is_hole(name: str, parent: str) -> bool:
    parent = parent or NO_GROUP
    return name.startswith(parent) and bool(re.fullmatch(f"({HOLE})+", name[len(parent) :]))


def _groups(document: Document) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """(class to group, class to group of its holes, losses)."""
    losses = []
    taken = {*document.labels, NO_GROUP}
    groups = {label: label or NO_GROUP for label in document.labels}
    if NO_GROUP in groups:
        while groups[NO_GROUP] in taken:
            groups[NO_GROUP] += "_"
        losses.append(f"the class '{NO_GROUP}' means no class to ASAP: written as "
                      f"'{groups[NO_GROUP]}'")  # fmt: skip
    taken |= set(groups.values())
    holes: dict[str, str] = {}
    for annotation in document.annotations:
        label = annotation.label
        if label in holes or not isinstance(annotation.shape, Polygon):
            continue
        if len(annotation.shape.interiors):
            name = groups[label] + HOLE
            while name in taken:
                name += HOLE
            taken.add(name)
            holes[label] = name
    return groups, holes, losses


def _kind(shape: Shape) -> str:
    kinds = {"Point": "Dot", "MultiPoint": "PointSet", "LineString": "Measurement"}
    return kinds.get(shape.geom_type, "Polygon")


def _vertices(shape: Shape) -> list[list[float]]:
    """Of the outline, which is not closed in this format."""
    line = shape.exterior if isinstance(shape, Polygon) else shape
    vertices: list[list[float]] = shapely.get_coordinates(line).tolist()
    return vertices[:-1] if line.geom_type == "LinearRing" else vertices


def _element(name: str, kind: str, group: str, colour: Colour, vertices: list[list[float]]) -> str:
    coordinates = "".join(
        f'\t\t\t\t<Coordinate Order="{order}" X="{x:.{DECIMALS}f}" Y="{y:.{DECIMALS}f}" />\n'
        for order, (x, y) in enumerate(vertices)
    )
    return (
        f'\t\t<Annotation Name="{escape(name)}" Type="{kind}" PartOfGroup="{escape(group)}" '
        f'Color="{colours.to_hex(colour)}">\n\t\t\t<Coordinates>\n{coordinates}'
        "\t\t\t</Coordinates>\n\t\t</Annotation>\n"
    )


def _group(name: str, parent: str, colour: Colour) -> str:
    return (
        f'\t\t<Group Name="{escape(name)}" PartOfGroup="{escape(parent)}" '
        f'Color="{colours.to_hex(colour)}">\n\t\t\t<Attributes />\n\t\t</Group>\n'
    )


ASAP = Format(
    name="asap",
    title="ASAP XML",
    suffixes=(".xml",),
    decimals=DECIMALS,
    holds=frozenset(Holds) - {Holds.PARTS},
    recognises=recognises,
    read=read,
    write=write,
)
