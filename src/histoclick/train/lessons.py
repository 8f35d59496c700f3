"""One step of training a built-in network: simulated users click, their last clicks are graded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.models.compliance import comply
from histoclick.models.denseclick.network import DenseClickNet
from histoclick.models.denseclick.network import Pyramid as DensePyramid
from histoclick.models.gatedclick.decoders import Pyramid
from histoclick.models.gatedclick.network import SURE, GatedClickNet
from histoclick.models.gatedclick.segmenter import BUMP_PX
from histoclick.train.crops import USERS, Batch
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
    encoded = net.encode(batch.images)
    pyramid = DensePyramid(*(features.repeat_interleave(USERS, 0) for features in encoded))
    users = Trajectories(batch.targets, rng)
    target = torch.from_numpy(batch.targets)[:, None].float()
    predicted = batch.start
    started = torch.from_numpy(predicted)[:, None].float()
    previous = F.avg_pool2d(started, 2)
    losses = []
    for click in range(batch.clicks):
        users.click(predicted)
        graded = click >= batch.clicks - GRADED
        with torch.set_grad_enabled(graded):
            features = pyramid if graded else DensePyramid(*(f.detach() for f in pyramid))
            low = net.decode(features, users.tensor(), previous)
            logits = F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)
            if graded:
                focal = normalized_focal_loss(logits, target, users.weights())
                losses.append((focal + 0.5 * dice_loss(logits, target)).mean())
        previous = torch.sigmoid(low.detach())
        if rng.random() < FORGOTTEN:
            previous = torch.zeros_like(previous)
        predicted = (logits.detach()[:, 0] > 0).numpy()
    both = (predicted & batch.targets).sum((1, 2)) / (predicted | batch.targets).sum((1, 2))
    return torch.stack(losses).mean(), float(both.mean())


def gated_lesson(
    net: GatedClickNet, batch: Batch, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """The same for the gated family, whose last masks are logits at full resolution."""
    held = Pyramid(*(f.repeat_interleave(USERS, 0) for f in net.encode(batch.images)))
    users = Trajectories(batch.targets, rng)
    target = torch.from_numpy(batch.targets)[:, None].float()
    predicted = batch.start
    before = (2 * torch.from_numpy(predicted)[:, None].float() - 1) * SURE
    begun = torch.from_numpy(predicted.any((1, 2))).float()
    losses = []
    for click in range(batch.clicks):
        users.click(predicted)
        graded = click >= batch.clicks - GRADED
        before = before * begun.view(-1, 1, 1, 1)
        with torch.set_grad_enabled(graded):
            pyramid = held if graded else Pyramid(*(f.detach() for f in held))
            clicks = users.tensor()
            decoded = net.decode(pyramid, clicks, before, begun)
            if graded:
                turn = Turn(clicks, before, begun, decoded)
                losses.append(turn_loss(turn, target, users.weights()).mean())
        now = decoded.logits.detach()[:, 0].numpy()
        if net.parts.compliance:
            now = np.stack([comply(m, c, BUMP_PX) for m, c in zip(now, users.clicks, strict=True)])
        before, predicted = torch.from_numpy(now)[:, None], now > 0
        begun = torch.from_numpy(rng.random(len(now)) >= FORGOTTEN).float()
    both = (predicted & batch.targets).sum((1, 2)) / (predicted | batch.targets).sum((1, 2))
    return torch.stack(losses).mean(), float(both.mean())
