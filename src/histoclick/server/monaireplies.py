"""What MONAI Label's clients want to hear: ASAP XML, the Digital Slide Archive's JSON, or JSON.

Coordinates are whole px: of level 0 as the client counts them, or of the patch that it sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely
from shapely import Polygon

from histoclick.annotations.colours import default, to_hex
from histoclick.server.slits import one_ring

LABEL = "Object"  # no class that users have: the QuPath client removes objects of this class


@dataclass(frozen=True)
class Reply:
    """``location``, ``size``: of what was looked at, px. ``seconds``: until the answer."""

    model: str
    polygons: Sequence[Polygon]
    location: tuple[int, int]
    size: tuple[int, int]
    seconds: float

    @property
    def title(self) -> str:
        """For lists of annotations."""
        return f"histoclick - {self.model}"


def asap(reply: Reply) -> str:
    """ASAP XML. It has no holes: slits without width lead to them."""
    (x, y), (width, height), colour = reply.location, reply.size, to_hex(default(LABEL))
    title, model = quoteattr(reply.title), quoteattr(reply.model)
    lines = [
        '<?xml version="1.0"?>',
        "<ASAP_Annotations>",
        f'  <Annotations Name={title} Description="" Model={model} X="{x}" Y="{y}" '
        f'W="{width}" H="{height}">',
    ]
    for polygon in reply.polygons:
        ring = np.rint(one_ring(polygon)).astype(np.int64).tolist()
        lines.append(
            f'    <Annotation Name="{LABEL}" Type="Polygon" PartOfGroup="{LABEL}" Color="{colour}">'
        )
        lines.append("      <Coordinates>")
        lines += [
            f'        <Coordinate Order="{order}" X="{px}" Y="{py}" />'
            for order, (px, py) in enumerate(ring)
        ]
        lines += ["      </Coordinates>", "    </Annotation>"]
    lines += [
        "  </Annotations>",
        "  <AnnotationGroups>",
        f'    <Group Name="{LABEL}" PartOfGroup="None" Color="{colour}"><Attributes /></Group>',
        "  </AnnotationGroups>",
        "</ASAP_Annotations>",
    ]
    return "\n".join(lines)


def dsa(reply: Reply) -> str:
    """An annotation of the Digital Slide Archive, holes as its format has them.

    The client reads the description from the line before the last one.
    """
    red, green, blue = default(LABEL)
    elements = [
        {
            "group": LABEL,
            "type": "polyline",
            "lineColor": f"rgb({red},{green},{blue})",
            "lineWidth": 2.0,
            "closed": True,
            "points": _points(polygon.exterior),
            "holes": [_points(ring) for ring in polygon.interiors],
            "label": {"value": LABEL},
        }
        for polygon in reply.polygons
    ]
    told = {
        "model": reply.model,
        "desc": reply.title,
        "location": reply.location,
        "size": reply.size,
        "count": len(elements),
        "latencies": {"total": round(reply.seconds, 3)},
    }
    return (
        f'{{\n"name": {json.dumps(reply.title)},\n"elements": {json.dumps(elements)},\n'
        f'"description": {json.dumps(json.dumps(told))}\n}}'
    )


def plain(reply: Reply) -> dict[str, Any]:
    """Contours as lists of points; slits without width lead to holes."""
    contours = [np.rint(one_ring(p)).astype(np.int64).tolist() for p in reply.polygons]
    area = {"location": list(reply.location), "size": list(reply.size)}
    elements = [{"label": LABEL, "contours": contours}] if contours else []
    annotation = {**area, "elements": elements, "labels": {LABEL: list(default(LABEL))}}
    return {
        "name": reply.title,
        "description": "",
        "model": reply.model,
        **area,
        "annotations": [{"annotation": annotation}],
        "latencies": {"total": round(reply.seconds, 3)},
    }


def both(facts: dict[str, Any], png: bytes) -> tuple[bytes, str]:
    """Facts and the PNG of a mask as one multipart body, and its media type."""
    boundary = "histoclick-answer"
    parts = (
        ('form-data; name="params"', "application/json", json.dumps(facts).encode()),
        ('form-data; name="image"; filename="mask.png"', "image/png", png),
    )
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: {name}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, kind, data in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _points(ring: Any) -> list[list[int]]:
    """(x, y, 0) of all vertices; the first one is not repeated."""
    xy = np.rint(shapely.get_coordinates(ring)[:-1]).astype(np.int64)
    points: list[list[int]] = np.pad(xy, [(0, 0), (0, 1)]).tolist()
    return points
