"""What the networks of this family are made of, and the names that cards give them."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Parts:
    """An ablation switches one of these.

    ``decoder``: which one reads the pyramid (``decoders.DECODERS``). ``widths``: channels at
    strides 2, 4, 8, 16. ``mixers``: blocks at stride 16. ``skips``: the trunk's features at strides
    2 to 8 reach the decoder. ``likeness``: comparison with what was clicked. ``halos``: prompt maps
    besides spots at the clicks. ``previous``: the last mask is a prompt. ``hard``: as 0 and 1, not
    as probabilities. ``gate``: the answer
    replaces the last mask only where that is thought to be wrong. ``reach``: late clicks change
    nothing far away. ``refiner``: another look around the click at full resolution.
    ``compliance``: a clicked pixel gets what was said. ``merge``: of a late change, only the parts
    that meet a click are kept (FocalClick). ``lower``: a negative click only takes away.
    """

    decoder: str = "dense"
    widths: tuple[int, int, int, int] = (16, 32, 48, 96)
    mixers: int = 2
    skips: bool = True
    likeness: bool = True
    halos: bool = True
    previous: bool = True
    hard: bool = False
    gate: bool = True
    reach: bool = True
    refiner: bool = True
    compliance: bool = True
    merge: bool = False
    lower: bool = False


# Parameters, and size of a file of 16-bit floats: 2.12 million, 4.2 MB; 3.37 million, 6.7 MB
SMALL = Parts(lower=True)
BASE = replace(SMALL, widths=(32, 64, 96, 192), mixers=4)
# What the ablations are of: its negative clicks may add as well, as everybody else's here.
RAISES = replace(SMALL, lower=False)
PLAIN = replace(RAISES, gate=False, reach=False, refiner=False, compliance=False)

# Who reads the embedding alone gets a wider one; an eighth of it is left at the finest stride.
TOKENS = replace(PLAIN, decoder="sam", widths=(16, 32, 48, 128))

ARCHITECTURES = {
    "small": SMALL,
    "base": BASE,
    "small-raises": RAISES,
    "small-nogate": replace(RAISES, gate=False, reach=False),
    "small-noreach": replace(RAISES, reach=False),
    "small-norefiner": replace(RAISES, refiner=False),
    "small-nocompliance": replace(RAISES, compliance=False),
    "small-noskips": replace(RAISES, skips=False),
    "small-nolikeness": replace(RAISES, likeness=False),
    "small-nohalos": replace(RAISES, halos=False),
    "small-noprevious": replace(RAISES, previous=False),
    "small-hard": replace(RAISES, hard=True),
    "small-plain": PLAIN,
    "small-refiner": replace(PLAIN, refiner=True),
    "small-merge": replace(PLAIN, refiner=True, merge=True),
    "small-sam": TOKENS,
    "small-paper": replace(TOKENS, decoder="paper"),
    "small-segnext": replace(TOKENS, decoder="segnext"),
    "small-sam-obeys": replace(TOKENS, compliance=True),
    "small-paper-obeys": replace(TOKENS, decoder="paper", compliance=True),
    "small-segnext-obeys": replace(TOKENS, decoder="segnext", compliance=True),
}
