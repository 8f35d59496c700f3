import numpy as np

from fakes import disc
from histoclick.models.baselines import Discs, NearestColour
from histoclick.types import Click, Prompt


def test_discs_give_way_to_nearer_negative_clicks() -> None:
    discs = Discs(radius=20)
    encoded = discs.encode(np.zeros((80, 80, 3), np.uint8))
    clicks = (Click(30, 40), Click(40, 40, False))
    mask = discs.predict(encoded, Prompt(clicks)).mask
    for y, x in np.ndindex(80, 80):
        inside = np.hypot(x - 30, y - 40) < 20
        nearer = np.hypot(x - 30, y - 40) < np.hypot(x - 40, y - 40)
        assert mask[y, x] == (inside and nearer)


def test_discs_without_positive_click_are_empty() -> None:
    discs = Discs()
    encoded = discs.encode(np.zeros((20, 20, 3), np.uint8))
    assert not discs.predict(encoded, Prompt((Click(3, 3, False),))).mask.any()


def test_nearest_colour_finds_an_object_of_one_colour() -> None:
    truth = disc(64, 30, 30, 15)
    image = np.where(truth[..., None], (120, 60, 140), (235, 200, 220)).astype(np.uint8)
    model = NearestColour()
    encoded = model.encode(image)
    for clicks in ((Click(30, 30),), (Click(30, 30), Click(2, 2, False))):
        mask = model.predict(encoded, Prompt(clicks)).mask
        assert (mask & truth).sum() / (mask | truth).sum() > 0.75  # the blur moves its edge
