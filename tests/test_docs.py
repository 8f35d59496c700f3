"""Docs and examples say what is true."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not in a checkout")


def test_the_command_line_reference_is_up_to_date() -> None:
    subprocess.run([sys.executable, ROOT / "docs/cli_reference.py", "--check"], check=True)


@pytest.mark.parametrize("name", ["first_clicks", "your_own_model"])
def test_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"pixels belong|NoC@85", printed)


def test_every_command_in_the_readme_exists() -> None:
    known = (ROOT / "docs/cli.md").read_text()
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    commands = set(re.findall(r"^histoclick ([a-z]+)", text, re.MULTILINE))
    assert commands
    for command in commands:
        assert f"## histoclick {command}\n" in known


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text())
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_make_target_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"^make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE)
        assert set(named) <= targets
