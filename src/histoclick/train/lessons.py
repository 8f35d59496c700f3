"""One step of training a built-in network: simulated users click, their last clicks are graded."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.models.denseclick.network import DenseClickNet
from histoclick.models.denseclick.network import Pyramid as DensePyramid
from histoclick.models.gatedclick.decoders import Pyramid
from histoclick.models.gatedclick.graphs import rules_of
from histoclick.models.gatedclick.network import SURE, GatedClickNet
from histoclick.train.crops import Batch
from histoclick.train.families.gatedclick import Turn, turn_loss
from histoclick.train.losses import dice_loss, normalized_focal_loss
from histoclick.train.trajectories import Trajectories

GRADED = 2  # clicks at the end through which gradients flow
FORGOTTEN = 0.05  # chance that the last mask is hidden: else it is copied and clicks are ignored


def lesson(
    net: DenseClickNet | GatedClickNet, batch: Batch, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """Forward pass of one batch. Returns the loss and the mean IoU after the last click."""
    if isinstance(net, DenseClickNet):
        return dense_lesson(net, batch, rng)
    return gated_lesson(net, batch, rng)


def dense_lesson(
    net: DenseClickNet, batch: Batch, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """See ``lesson``, for the first family."""
    device = next(net.parameters()).device
    encoded, users_each = (
        net.encode(batch.images.to(device)),
        len(batch.targets) // len(batch.images),
    )
    pyramid = DensePyramid(*(features.repeat_interleave(users_each, 0) for features in encoded))
    users = Trajectories(batch.targets, rng)
    target = torch.from_numpy(batch.targets)[:, None].float().to(device)
    predicted = batch.start
    started = torch.from_numpy(predicted)[:, None].float().to(device)
    previous = F.avg_pool2d(started, 2)
    losses = []
    for click in range(batch.clicks):
        users.click(predicted)
        graded = click >= batch.clicks - GRADED
        with torch.set_grad_enabled(graded):
            features = pyramid if graded else DensePyramid(*(f.detach() for f in pyramid))
            low = net.decode(features, users.tensor().to(device), previous)
            logits = F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)
            if graded:
                focal = normalized_focal_loss(logits, target, users.weights().to(device))
                losses.append((focal + 0.5 * dice_loss(logits, target)).mean())
        previous = torch.sigmoid(low.detach())
        if rng.random() < FORGOTTEN:
            previous = torch.zeros_like(previous)
        predicted = (logits.detach()[:, 0] > 0).cpu().numpy()
    both = (predicted & batch.targets).sum((1, 2)) / (predicted | batch.targets).sum((1, 2))
    return torch.stack(losses).mean(), float(both.mean())


def gated_lesson(
    net: GatedClickNet, batch: Batch, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """The same for the gated family, whose last masks are logits at full resolution."""
    device = next(net.parameters()).device
    images = batch.images.to(device)
    if batch.features is None:
        encoded = net.encode(images)
    else:
        encoded = net.project([maps.to(device) for maps in batch.features], images)
    users_each = len(batch.targets) // len(batch.images)
    held = Pyramid(*(f.repeat_interleave(users_each, 0) for f in encoded))
    users = Trajectories(batch.targets, rng)
    target = torch.from_numpy(batch.targets)[:, None].float().to(device)
    predicted = batch.start
    before = (2 * torch.from_numpy(predicted)[:, None].float().to(device) - 1) * SURE
    begun = torch.from_numpy(predicted.any((1, 2))).float().to(device)
    # A part that a merge leaves out must be learned from; how sure a mask is, the network limits.
    rules = replace(rules_of(net.parts), merge=False, sure=math.inf)
    losses = []
    for click in range(batch.clicks):
        users.click(predicted)
        graded = click >= batch.clicks - GRADED
        before = before * begun.view(-1, 1, 1, 1)
        with torch.set_grad_enabled(graded):
            pyramid = held if graded else Pyramid(*(f.detach() for f in held))
            clicks = users.tensor().to(device)
            decoded = net.decode(pyramid, clicks, before, begun)
            if graded:
                turn = Turn(clicks, before, begun, decoded)
                losses.append(turn_loss(turn, target, users.weights().to(device)).mean())
        given, were = (x.detach()[:, 0].cpu().numpy() for x in (decoded.logits, before))
        last = [b if was else None for b, was in zip(were, begun > 0, strict=True)]
        now = np.stack(
            [rules.settle(*each) for each in zip(given, last, users.clicks, strict=True)]
        )
        before, predicted = torch.from_numpy(now)[:, None].to(device), now > 0
        begun = torch.from_numpy(rng.random(len(now)) >= FORGOTTEN).float().to(device)
    both = (predicted & batch.targets).sum((1, 2)) / (predicted | batch.targets).sum((1, 2))
    return torch.stack(losses).mean(), float(both.mean())
