"""Getting open data: downloads that can be cut at any moment, verified before they are used."""

from histoclick.fetch.downloads import Outcome, Result, fetch
from histoclick.fetch.plan import Plan, State, in_words, make_plan
from histoclick.fetch.web import Patience, get

__all__ = [
    "Outcome", "Patience", "Plan", "Result", "State", "fetch", "get", "in_words", "make_plan",
]  # fmt: skip
