"""Whatever fits the server's description of itself, or nearly does, is answered as described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from served import Server, serving

SUPPRESSED = HealthCheck.too_slow, HealthCheck.filter_too_much


def ask(case: Any, server: Server) -> None:
    """Mostly on a slide that there is, or nothing deep would be reached."""
    id_ = case.path_parameters.get("id")
    if isinstance(id_, str) and len(id_) == 16 and id_.isalnum() and id_[0] != "0":
        names = "a.tif", "b.tif", "broken.svs"
        case.path_parameters["id"] = server.id_of(names[ord(id_[0]) % 3])
    # What is right may still ask for an object or a tile that there is not.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])


@pytest.mark.parametrize("examples", [6, pytest.param(150, marks=pytest.mark.slow)])
def test_the_server_is_as_described(slides: Path, tmp_path: Path, examples: int) -> None:
    asked = set()
    hosts = frozenset({"testserver"})
    with serving([slides], tmp_path / "store.sqlite", hosts=hosts) as server:
        schema = schemathesis.openapi.from_asgi("/api/openapi.json", server.app)
        for found in schema.include(path_regex="^/api/").get_all_operations():
            operation = found.ok()
            asked.add(operation.label)
            for mode in GenerationMode:
                if mode.is_negative and not [*operation.iter_parameters(), *operation.body]:
                    continue  # nothing could be wrong

                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=examples,
                    deadline=None,
                    database=None,
                    derandomize=examples < 100,
                    phases=[Phase.generate],
                    suppress_health_check=SUPPRESSED,
                )
                def check(case: Any) -> None:
                    ask(case, server)

                check()
    assert len(asked) == 14, asked
