"""A Python without PyTorch, as far as it knows: for tests of what runs without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BLOCKED = ("torch", "transformers", "accelerate", "onnx", "onnxscript")
START = f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
COMMAND = START + "from histoclick.cli import main\nmain()\n"


def python(code: str, *arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    """``code`` in such a Python. ``home``: where its caches may lie."""
    return subprocess.run(
        [sys.executable, "-c", START + code, *map(str, arguments)],
        env=environment(home), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def histoclick(*words: object, home: Path) -> subprocess.CompletedProcess[str]:
    """A command in such a Python."""
    return python("from histoclick.cli import main\nmain()\n", *words, home=home)


def environment(home: Path) -> dict[str, str]:
    """Of its processes."""
    mine = {"OMP_NUM_THREADS": "1", "HISTOCLICK_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    return os.environ | mine
