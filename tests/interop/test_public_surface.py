"""The surface that is kept of the reference is that of the reference."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import public_surface


def test_the_kept_surface_is_the_reference(reference: Any, tmp_path: Path) -> None:
    command = [str(reference.python), public_surface.__file__, public_surface.REFERENCE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == json.loads(public_surface.STORED.read_text())
