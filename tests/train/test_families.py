"""What every family promises to the loop, with its smallest member."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from histoclick.models import registry
from histoclick.models.card import Card
from histoclick.models.clickmaps import pack
from histoclick.train.families import start
from histoclick.train.families.sam import SCENARIOS
from histoclick.train.grading import Grading
from histoclick.train.settings import Settings, read_settings
from histoclick.train.trainee import Trainee
from histoclick.types import Click, HistoclickError, Prompt
from trainees import CROP, base, make

MEMBERS = [
    ("denseclick", "", "whole"), ("denseclick", "", "md"),
    ("gatedclick", "small", "whole"), ("gatedclick", "small", "md"),
    ("ritm", "hrnet18s", "whole"),
    ("focalclick", "segformerB0_S2", "whole"), ("focalclick", "hrnet18s_S1", "whole"),
    ("simpleclick", "xtiny448", "whole"),
    *(("sam", "tiny", scenario) for scenario in SCENARIOS),
]  # fmt: skip


def settings(**changes: object) -> Settings:
    return read_settings(crop_px=CROP, first_points=4, **changes)


def batch(count: int = 3, seed: int = 0) -> tuple[Tensor, np.ndarray, list[np.random.Generator]]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:CROP, :CROP]
    centres = rng.uniform(30, CROP - 30, (count, 2))
    targets = np.stack([np.hypot(y - a, x - b) < 22 for a, b in centres])
    images = rng.random((count, 3, CROP, CROP), np.float32) * 0.4
    images[:, 0] += 0.5 * targets
    return (
        torch.from_numpy(images),
        targets,
        [np.random.default_rng([seed, i]) for i in range(count)],
    )


def learn(trainee: Trainee, scenario: str, steps: int) -> list[float]:
    """Losses of a few steps of plain gradient descent in miniature."""
    trainee.freeze(scenario)
    grading = Grading(trainee, scenario, settings())
    parameters = [p for group in trainee.groups(scenario) for p in group.parameters]
    optimiser = torch.optim.Adam(parameters, 1e-3)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        images, targets, rngs = batch(seed=step)
        if trainee.scenarios[scenario].frozen_encoder:
            with torch.no_grad():
                images = trainee.encode(images)
        # One click, several at first, several answered: all ways through the network.
        kept = trainee.scenarios[scenario].frozen_encoder
        loss, iou = grading(images, targets, rngs, (0, 2, 1)[step % 3], kept)
        assert loss.shape == iou.shape == (3,)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        losses.append(float(loss.detach().mean()))
    return losses


@pytest.mark.parametrize(("family", "architecture", "scenario"), MEMBERS)
def test_what_is_frozen_stays_and_all_else_moves(
    family: str, architecture: str, scenario: str
) -> None:
    trainee = make(family, architecture, scenario)
    before = {name: value.clone() for name, value in trainee.net.state_dict().items()}
    losses = learn(trainee, scenario, 6)
    assert np.isfinite(losses).all()
    trains = trainee.scenarios[scenario].trains
    fixed = {name for name, p in trainee.net.named_parameters() if not p.requires_grad}
    moved = set()
    for name, value in trainee.net.state_dict().items():
        if torch.equal(value, before[name]):
            continue
        moved.add(name)
        assert trains(name), f"{name} is frozen and changed"
    for name, _ in trainee.net.named_parameters():
        assert name in fixed or name in moved, f"{name} learns and did not move"
    assert {id(p) for g in trainee.groups(scenario) for p in g.parameters} == {
        id(p) for p in trainee.net.parameters() if p.requires_grad
    }


@pytest.mark.parametrize(("family", "architecture", "scenario"), MEMBERS[:6])
def test_what_was_saved_predicts_as_a_model(
    family: str, architecture: str, scenario: str, tmp_path: Path
) -> None:
    trainee = make(family, architecture, scenario)
    learn(trainee, scenario, 1)
    card, _ = registry.find(base(family, architecture))
    folder = tmp_path / card.id
    folder.mkdir()
    trainee.save(folder, card).write(folder)
    registry.load(folder)
    again = start(*registry.find(folder), scenario, CROP)
    for name, value in trainee.net.state_dict().items():
        other = again.net.state_dict()[name]
        torch.testing.assert_close(other, value, atol=2e-3, rtol=2e-3)  # denseclick stores halves


@pytest.mark.parametrize(
    ("family", "architecture", "side", "tolerance"),
    [  # of the range of the logits; what is not of the input's size is resized in two ways
        ("denseclick", "", 448, 1e-5),
        ("sam", "vit_t-refine", CROP, 0.05),
    ],
)
def test_it_learns_what_its_segmenter_will_be_asked(
    family: str, architecture: str, side: int, tolerance: float
) -> None:
    """Where clicks are, what the memory is: of families whose segmenters neither zoom nor flip."""
    card, folder = registry.find(base(family, architecture))
    trainee, segmenter = start(card, folder, "whole", side), registry.load(folder)
    trainee.train("whole", learning=False)
    levels = (batch(1)[0][0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    image = np.asarray(cv2.resize(cv2.GaussianBlur(levels, (9, 9), 2), (side, side)), np.uint8)
    seen = trainee.encode(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    encoded = segmenter.encode(image)
    prompt, prediction, answer = Prompt(), None, None
    for x, y, positive in ((30, 20, True), (70, 61, False), (12, 45, True)):
        prompt = prompt.add(Click(x * side // CROP, y * side // CROP, positive))
        prediction = segmenter.predict(encoded, prompt, prediction)
        with torch.no_grad():
            answer = trainee.answer(seen, pack(prompt.clicks), answer)
        logits = answer.logits[0, 0].numpy()
        assert np.abs(logits - prediction.logits).max() < tolerance * np.ptp(logits)


@pytest.mark.parametrize(("family", "architecture", "scenario"), MEMBERS)
def test_modes_follow_what_learns(family: str, architecture: str, scenario: str) -> None:
    trainee = make(family, architecture, scenario)
    trainee.freeze(scenario)
    trainee.train(scenario)
    trains = trainee.scenarios[scenario].trains
    for name, module in trainee.net.named_modules():
        held = [n for n, p in module.named_parameters(name) if p.requires_grad]
        held += [n for n, _ in module.named_buffers(name)]
        if held:
            assert module.training == all(map(trains, held)), name
    dropouts = [m for m in trainee.net.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    if scenario == "whole":
        assert all(module.training for module in dropouts)
    trainee.train(scenario, learning=False)
    assert not any(module.training for module in trainee.net.modules())


@pytest.mark.parametrize(("family", "architecture", "scenario"), MEMBERS)
def test_bfloat16_learns_everywhere(family: str, architecture: str, scenario: str) -> None:
    trainee = make(family, architecture, scenario)
    trainee.freeze(scenario)
    grading = Grading(trainee, scenario, settings(precision="bfloat16"))
    loss, _ = grading(*batch(2), 1)  # an encoder that is not kept is asked
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert torch.isfinite(loss).all()


def test_checkpointing_computes_again_and_changes_nothing() -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        trainee = make("sam", "tiny", "ie-md")
        if checkpointing:
            trainee.save_memory()
        trainee.freeze("ie-md")
        layer = trainee.net.vision_encoder.layers[0]
        count = [0]
        layer.attn.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        loss, _ = Grading(trainee, "ie-md", settings())(*batch(2), 1)
        loss.sum().backward()
        gradients.append(layer.attn.qkv.weight.grad.clone())
        calls.append(count[0])
    assert calls == [1, 2]
    torch.testing.assert_close(*gradients)


def test_sam_with_the_papers_decoder_begins_with_sams_transformer(tmp_path: Path) -> None:
    folder = registry.with_random_weights("sam", "vit_t", tmp_path / "random")
    card, _ = registry.find(folder)
    plain, refined = (start(card, folder, scenario, CROP) for scenario in ("md", "refine"))
    own, new = plain.net.state_dict(), refined.net.state_dict()
    shared = own.keys() & new.keys()
    assert any("mask_decoder.transformer.layers" in name for name in shared)
    for name in shared:
        torch.testing.assert_close(own[name], new[name], rtol=0, atol=0)
    made = tmp_path / "made"
    made.mkdir()
    saved = refined.save(made, card)
    assert (saved.family, saved.architecture) == ("mobilesam", "vit_t-refine")
    saved.write(made)
    with pytest.raises(HistoclickError, match="no scenario 'md'; give refine or whole"):
        start(saved, made, "md", CROP)


@pytest.mark.parametrize("scenario", ["whole", "refine"])
def test_mobilesam_can_see_less_than_1024_px(tmp_path: Path, scenario: str) -> None:
    folder = registry.with_random_weights("mobilesam", "vit_t", tmp_path / "random", 256)
    card, _ = registry.find(folder)
    assert card.input_size == 256
    trainee = start(card, folder, scenario, CROP)
    assert trainee.encode(torch.zeros(1, 3, CROP, CROP)).shape == (1, 256, 16, 16)
    made = tmp_path / "made"
    made.mkdir()
    trainee.save(made, card).write(made)
    segmenter = registry.load(made)
    encoded = segmenter.encode(np.zeros((60, 90, 3), np.uint8))
    answer = segmenter.predict(encoded, Prompt([Click(30, 40, True)]))
    assert answer.logits.shape == (60, 90)
    assert answer.memory.shape == (1, 64, 64)


def test_a_vit_sees_what_it_has_positions_for(tmp_path: Path) -> None:
    card = Card("b", "sam", "vit_b", "", "", "", input_size=512)
    card.write(tmp_path)
    with pytest.raises(HistoclickError, match="512; a ViT has positions for 1024 px alone"):
        registry.load(tmp_path)


def test_what_a_family_does_not_have_is_told() -> None:
    card, folder = registry.find("histoclick-tiny")
    with pytest.raises(HistoclickError, match="no scenario 'refine'; give whole or md"):
        start(card, folder, "refine", CROP)
    card, folder = registry.find("discs")
    with pytest.raises(HistoclickError, match="'baseline' cannot be trained"):
        start(card, folder, "whole", CROP)
