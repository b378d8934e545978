"""Runs the reference side of a benchmark, in the reference's own environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "interop"))

from reference_env import reference_python  # noqa: E402 - found through the line above


def reference(command: str, **arguments: Any) -> dict[str, Any]:
    """Run a function of `_reference_side.py` and return the figures that it measured."""
    done = subprocess.run(
        [
            str(reference_python()),
            str(Path(__file__).with_name("_reference_side.py")),
            command,
            json.dumps(arguments, default=str),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
