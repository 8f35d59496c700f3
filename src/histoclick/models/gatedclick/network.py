"""The network: what is known of an image, and one more click on it.

Once per image, a MobileNetV2 trunk gives a pyramid at strides 2 to 16. At every click a decoder
makes a proposal. It does not become the answer: where the last mask is thought to be right, that
stays (*gated update*), late clicks have a bounded *reach*, and around the click a *refiner* looks
again at full resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.gatedclick.decoders import Draft, Pyramid, decoder
from histoclick.models.gatedclick.parts import Parts
from histoclick.models.gatedclick.refiner import Refiner
from histoclick.models.nets.clickrasters import last_click
from histoclick.models.nets.clickunits import double
from histoclick.models.nets.mobilenet import CHANNELS as TRUNK
from histoclick.models.nets.mobilenet import MobileNetV2

MULTIPLE = 32  # of the input's sides
LIKENESS = 32  # length of the features that are compared
SURE = 4.0  # logit; the last mask is never surer than this
FREE = 3  # clicks that may change everything
NEAR, FAR = 96.0, 192.0  # px: later ones reach fully to here, and no farther than there


class Decoded(NamedTuple):
    """``logits``: (B, 1, H, W), the answer. ``proposal``: (B, 1, H/2, W/2), the decoder's.
    ``gate``: logits (B, 1, H/2, W/2) of "the last mask is wrong here", ``None`` without a gate.
    ``quality``: (B,), the answer's IoU as the network thinks."""

    logits: Tensor
    proposal: Tensor
    gate: Tensor | None
    quality: Tensor


class GatedClickNet(nn.Module):
    """Encoder and click decoder. ``norm=False`` builds the shipped form of the trunk."""

    def __init__(self, parts: Parts, norm: bool = True) -> None:
        super().__init__()
        self.parts = parts
        w2, w4, w8, w16 = parts.widths
        self.trunk = MobileNetV2(norm)
        self.decoder = decoder(parts)
        if self.decoder.pyramidal:
            self.lateral2 = nn.Conv2d(TRUNK[0], w2, 1)
            self.lateral4 = nn.Conv2d(TRUNK[1], w4, 1)
            self.lateral8 = nn.Conv2d(TRUNK[2], w8, 1)
            self.likeness = nn.Conv2d(w8 + w16, LIKENESS, 1)
        self.lateral16 = nn.Conv2d(TRUNK[3], w16, 1)
        self.lateral32 = nn.Conv2d(TRUNK[4], w16, 1)
        if parts.gate:
            self.gate = nn.Conv2d(w2, 1, 1)
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, 2.0)  # type: ignore[arg-type]  # begins open
        if parts.refiner:
            self.refiner = Refiner(w2)
        self.judge = nn.Sequential(
            nn.Linear(w16 + 2 * w2 + 2, 64), nn.ReLU(inplace=True), nn.Linear(64, 1)
        )

    def encode(self, images: Tensor) -> Pyramid:
        """``images``: (B, 3, H, W) in [-1, 1], H and W multiples of 32."""
        return self.project(self.trunk(images), images)

    def project(self, features: Sequence[Tensor], images: Tensor) -> Pyramid:
        """The second half of ``encode``. ``features``: what the trunk made of ``images``."""
        f2, f4, f8, f16, f32 = features
        s16 = self.lateral16(f16) + double(self.lateral32(f32))
        if not self.decoder.pyramidal:
            return Pyramid(f2[:, :0], f4[:, :0], f8[:, :0], s16, f8[:, :0], images)
        s8 = self.lateral8(f8)
        likeness = F.normalize(self.likeness(torch.cat([s8, double(s16)], 1)), dim=1)
        return Pyramid(self.lateral2(f2), self.lateral4(f4), s8, s16, likeness, images)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of every part of the pyramid."""
        w2, w4, w8, w16 = self.parts.widths
        if not self.decoder.pyramidal:
            return 0, 0, 0, w16, 0, 3
        return w2, w4, w8, w16, LIKENESS, 3

    def decode(self, pyramid: Pyramid, clicks: Tensor, before: Tensor, begun: Tensor) -> Decoded:
        """One more click. ``clicks``: (B, N, 3) as in ``clickrasters``. ``before``: (B, 1, H, W),
        logits of the last mask; ``begun``: (B,), 1 where there is one, else 0."""
        parts = self.parts
        there = begun.view(-1, 1, 1, 1)
        probable = torch.sigmoid(before) * there
        prompt = (probable > 0.5).to(probable) if parts.hard else probable
        draft: Draft = self.decoder(
            pyramid, clicks, F.avg_pool2d(prompt, 2) * float(parts.previous)
        )
        # Logits are mixed as 32-bit floats, whatever the convolutions gave.
        proposal = draft.proposal.float()
        gate = self.gate(draft.fine).float() if parts.gate else None
        opened = torch.ones_like(before) if gate is None else double(torch.sigmoid(gate))
        if parts.reach:
            opened = opened * within_reach(clicks, (before.shape[2], before.shape[3]))
        opened = 1 - there * (1 - opened)
        logits = torch.lerp(before.clamp(-SURE, SURE), double(proposal), opened)
        if parts.refiner:
            logits = logits + there * self.refiner(
                pyramid.image, draft.fine, logits, probable, clicks
            )
        return Decoded(logits, proposal, gate, self._quality(draft, logits))

    def _quality(self, draft: Draft, logits: Tensor) -> Tensor:
        """(B,). It judges what the others did and teaches them nothing."""
        inside = F.avg_pool2d(torch.sigmoid(logits.detach()), 2)
        parts = torch.cat([inside, 1 - inside], 1).flatten(2)  # (B, 2, h * w)
        summed = parts @ draft.fine.detach().flatten(2).transpose(1, 2).to(parts)
        means = summed / (parts.sum(2, keepdim=True) + 1)
        pooled = [
            draft.coarse.detach().mean((2, 3)),
            means[:, 0],
            means[:, 1],
            inside.mean((2, 3)),
            # Of all that may be inside, how much is unsure
            (inside * (1 - inside)).sum((2, 3)) / (inside.sum((2, 3)) + 1),
        ]
        return torch.sigmoid(self.judge(torch.cat(pooled, 1))[:, 0].float())


def within_reach(clicks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) in 0..1: how much the last of ``clicks`` (B, N, 3) may change where. All 1 for
    the first ``FREE`` ones; then 1 up to ``NEAR`` px around it, 0 from ``FAR`` px on."""
    late = (clicks[:, :, 2] != 0).sum(1) > FREE
    if not torch.compiler.is_compiling() and not late.any():
        return clicks.new_ones((len(clicks), 1, *size))
    last = last_click(clicks)
    dy = torch.arange(size[0], device=clicks.device) - last[:, 1, None]
    dx = torch.arange(size[1], device=clicks.device) - last[:, 0, None]
    distance = torch.sqrt(dy.square()[:, :, None] + dx.square()[:, None, :])
    fade = ((distance - NEAR) / (FAR - NEAR)).clamp(0, 1)
    reach = torch.cos(fade * (math.pi / 2)).square().masked_fill(fade == 1, 0.0)
    return torch.where(late[:, None, None], reach, 1.0)[:, None]
