"""How PAIP2019 is had, and how a folder with it looks. Its terms let nobody pass it on."""

from __future__ import annotations

import re

from histoclick.datasets.inventory import Layout

STEPS = """\
PAIP2019 (liver cancer; 50 training slides with outlines) is for registered users, so histoclick
cannot fetch it:

1. Make an account at https://grand-challenge.org.
2. Join the challenge at https://paip2019.grand-challenge.org and do what its pages ask of you; its
   organisers decide who gets the data. Nobody may pass it on.
3. Download the training data from the challenge's Dataset page and unpack all of it into one
   folder. How it is sorted inside does not matter. A training case is
     01_01_0083.svs          the slide, x20 (.SVS for some)
     01_01_0083.xml          outlines: layer 1 whole tumour, layer 2 viable tumour
     01_01_0083_whole.tif    mask of the whole tumour
     01_01_0083_viable.tif   mask of the viable tumour
   Slides of validation and test have no outlines: no patches can be cut from them.
4. Check it:    histoclick doctor FOLDER
   Prepare it:  histoclick prepare paip2019 --slides FOLDER --annotations FOLDER --out PATCHES
"""
_CASE = r"(?P<case>\d{2}_\d{2}_\d{4})"
_ENDINGS = {"annotation": ".xml", "whole mask": "_whole.tif", "viable mask": "_viable.tif"}


def _complaint(case: str, parts: set[str]) -> str:
    outlines = parts & set(_ENDINGS)
    if "slide" not in parts:
        return f"{' and '.join(sorted(outlines))} without slide; add {case}.svs"
    if outlines in (set(), {"annotation"}, set(_ENDINGS)):  # the masks were drawn from the XML
        return ""
    missing = [f"{case}{end}" for part, end in _ENDINGS.items() if part not in parts]
    return f"incomplete; add {' and '.join(missing)}"


PAIP2019 = Layout(
    "PAIP2019",
    {
        "slide": re.compile(rf"{_CASE}\.svs"),
        "annotation": re.compile(rf"{_CASE}\.xml"),
        "whole mask": re.compile(rf"{_CASE}_whole\.tiff?"),
        "viable mask": re.compile(rf"{_CASE}_viable\.tiff?"),
    },
    _complaint,
)
