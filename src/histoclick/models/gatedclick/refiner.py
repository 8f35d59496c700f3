"""A look around the last click at full resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.nets.clickrasters import (
    LAST,
    SPOT,
    bell,
    click_distances,
    last_click,
    nearest_distances,
)
from histoclick.models.nets.clickunits import unit

SIDE = 96  # px of the crop, or less where the image is smaller
WIDTH = 24


class Refiner(nn.Module):
    """Three convolutions over what is known in a square around the last click.

    Its correction fades to nothing ``SIDE / 2`` px from the click.
    """

    def __init__(self, fine: int) -> None:
        """``fine``: channels of the decoder's features at stride 2."""
        super().__init__()
        self.convs = nn.Sequential(
            unit(3 + fine + 2 + 3, WIDTH), unit(WIDTH, WIDTH), unit(WIDTH, WIDTH)
        )
        self.head = nn.Conv2d(WIDTH, 1, 1)
        nn.init.zeros_(self.head.weight)  # it begins as no correction
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(
        self, image: Tensor, fine: Tensor, logits: Tensor, before: Tensor, clicks: Tensor
    ) -> Tensor:
        """What to add to ``logits``, (B, 1, H, W).

        ``image``: (B, 3, H, W) in [-1, 1]; ``fine``: (B, C, H/2, W/2); ``logits``: (B, 1, H, W);
        ``before``: (B, 1, H, W), probability of the last mask; ``clicks``: (B, N, 3).
        """
        height, width = image.shape[2:]
        # As an export can follow it, for any size
        side_y, side_x = (torch.sym_min(SIDE, side) for side in (height, width))  # type: ignore[no-untyped-call]
        last = last_click(clicks)
        # Even corners, so that crops of stride 2 fit those of stride 1
        top = _corner(last[:, 1], side_y, height)
        left = _corner(last[:, 0], side_x, width)
        rows = top[:, None] + torch.arange(side_y, device=image.device)
        columns = left[:, None] + torch.arange(side_x, device=image.device)
        half_rows = top[:, None] // 2 + torch.arange(side_y // 2, device=image.device)
        half_columns = left[:, None] // 2 + torch.arange(side_x // 2, device=image.device)
        features = F.interpolate(
            cut(fine, half_rows, half_columns),
            (side_y, side_x),
            mode="bilinear",
            align_corners=False,
        )
        offset = torch.stack([left, top, torch.zeros_like(top)], 1)[:, None].to(clicks)
        spots = [
            bell(nearest_distances(clicks - offset, sign, (side_y, side_x), 1), SPOT)
            for sign in (1, -1)
        ]
        near = click_distances(last[:, None] - offset, (side_y, side_x), 1)
        around = last[:, 2, None, None, None] * bell(near, LAST)
        seen = [
            cut(image, rows, columns),
            features,
            torch.sigmoid(cut(logits, rows, columns)),
            cut(before, rows, columns),
            *spots,
            around,
        ]
        window = torch.cos((near / (SIDE / 2)).clamp(max=1) * (math.pi / 2)).square()
        window = window.masked_fill(near >= SIDE / 2, 0.0)
        change = self.head(self.convs(torch.cat(seen, 1))) * window
        return paste(change, rows, columns, (height, width))


def cut(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, h, w) of maps (B, C, H, W) at ``rows`` (B, h) and ``columns`` (B, w)."""
    batch = torch.arange(len(maps), device=maps.device)[:, None, None]
    picked = maps.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def paste(crop: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W): zero but for ``crop`` (B, 1, h, w) at ``rows`` and ``columns``."""
    whole = crop.new_zeros((len(crop), *size))
    batch = torch.arange(len(crop), device=crop.device)[:, None, None]
    return whole.index_put((batch, rows[:, :, None], columns[:, None, :]), crop[:, 0])[:, None]


def _corner(centre: Tensor, side: int, length: int) -> Tensor:
    corner = (centre - side / 2).round().long().clamp(0, length - side)
    return corner // 2 * 2
