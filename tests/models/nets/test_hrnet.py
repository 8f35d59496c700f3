"""HRNet and its head beyond the golden numbers, which the families that use it are held to."""

from __future__ import annotations

import pytest
import torch

from histoclick.models.nets.hrnet import WIDTHS, HRNet, maps_transform
from histoclick.models.nets.normalise import Normalise
from histoclick.models.nets.ocr import ObjectContext, gather


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 96), (33, 47), (32, 32)])
def test_every_size_of_image_is_answered_at_stride_4(size: tuple[int, int]) -> None:
    net = HRNet(WIDTHS["hrnet18s"]).eval()
    image = torch.rand(2, 3, *size)
    maps = maps_transform()(image)
    seen = net(image, maps)
    rows, columns = (-(-side // 4) for side in size)
    assert seen.logits.shape == seen.auxiliary.shape == (2, 1, rows, columns)
    assert seen.feature.shape == (2, 96, rows, columns)


def test_the_object_is_the_mean_of_where_it_is() -> None:
    feature = torch.randn(2, 5, 3, 4)
    logits = torch.full((2, 1, 3, 4), -100.0)
    logits[0, 0, 1, 2] = logits[1, 0, 0, 0] = logits[1, 0, 2, 3] = 100
    mean = gather(feature, logits)
    torch.testing.assert_close(mean[0, :, 0, 0], feature[0, :, 1, 2])
    torch.testing.assert_close(mean[1, :, 0, 0], feature[1, :, [0, 2], [0, 3]].mean(1))


@torch.inference_mode()
def test_of_one_object_the_general_head_asks_nothing_of_its_pixels() -> None:
    """The definition with its softmax over objects, of which there is one."""
    torch.manual_seed(0)
    head = ObjectContext(8, 4).eval()
    feature, mean = torch.randn(2, 8, 5, 6), torch.randn(2, 8, 1, 1)
    block = head.object_context_block
    query = block["f_pixel"](feature).flatten(2).transpose(1, 2)  # (B, pixels, 4)
    key, value = block["f_object"](mean).flatten(2), block["f_down"](mean).flatten(2)
    agreement = torch.softmax(query @ key / 2, 2)  # (B, pixels, objects)
    context = (agreement @ value.transpose(1, 2)).transpose(1, 2).reshape(2, 4, 5, 6)
    expected = head.conv_bn_dropout(torch.cat([block["f_up"](context), feature], 1))
    torch.testing.assert_close(head(feature, mean), expected)


def test_colours_of_imagenet() -> None:
    assert not Normalise().state_dict()
    grey = Normalise()(torch.full((1, 3, 1, 1), 0.5))
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert grey.flatten().tolist() == pytest.approx(expected)
