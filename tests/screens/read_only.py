"""A folder that cannot be written, for root neither."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Lets nobody write to a folder inside, by its rights, or by a mount where that is needed."""
    folder.chmod(0o555)
    try:
        if not os.access(folder, os.W_OK):
            yield
            return
        mount = ["mount", "--bind", "-o", "ro", str(folder), str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("root can write everywhere here, and may not mount")
        try:
            if os.access(folder, os.W_OK):
                pytest.skip("a mount is not read-only here")
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.chmod(0o755)
