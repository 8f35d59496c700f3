"""Networks made ready to predict compute what they did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from histoclick.models.nets.fold import fold
from histoclick.models.nets.hrnet import WIDTHS, HRNet


def used(net: nn.Module) -> nn.Module:
    """Batch norms as training leaves them: their statistics differ from channel to channel."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return net.eval()


@torch.inference_mode()
def test_convolution_and_norm_become_one() -> None:
    torch.manual_seed(0)
    net = used(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)))
    image = torch.randn(2, 3, 9, 11)
    expected = net(image)
    fold(net, "cpu")
    kinds = [type(module) for module in net]
    assert kinds == [nn.Conv2d, nn.Identity, nn.ReLU, nn.BatchNorm2d]  # no norm after a ReLU
    torch.testing.assert_close(net(image), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_hrnet(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = used(HRNet(WIDTHS["hrnet18s"]))
    image = torch.randn(1, 3, *size)
    maps = torch.randn(1, 64, size[0] // 2, size[1] // 2)
    expected = net(image, maps)
    fold(net, "cpu")
    left = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(name.startswith("ocr_distri_head") for name in left)
    for found, told in zip(net(image, maps), expected, strict=True):
        torch.testing.assert_close(found, told, rtol=1e-4, atol=1e-4 * float(told.abs().max()))
