"""Whether a folder of slides is one of the data sets histoclick knows, and whole."""

from __future__ import annotations

from pathlib import Path

from histoclick.datasets.camelyon16_folder import CAMELYON16
from histoclick.datasets.inventory import Inventory, take_inventory
from histoclick.datasets.paip2019_folder import PAIP2019

LAYOUTS = (CAMELYON16, PAIP2019)


def check_folder(folder: Path) -> list[Inventory]:
    """An inventory of each data set with files below ``folder``; none for other folders.

    Reads headers of TIFFs only. Raises ``HistoclickError`` for a folder that is not there.
    """
    found = (take_inventory(folder, layout) for layout in LAYOUTS)
    return [inventory for inventory in found if inventory]
