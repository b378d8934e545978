"""The reference, `pipelime-python` 3.0.0, in an environment of its own."""

from __future__ import annotations

import json
import pickle
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from reference_env import INSTALL_TIMEOUT_S, ReferenceUnavailableError, reference_python

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "interop: drives the reference package in an environment of its own"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Slow, because the first run installs the reference: some hundred megabytes.
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(INSTALL_TIMEOUT_S + 60))


class Reference:
    """The reference package, driven through a program run by its own interpreter."""

    def __init__(self, python: Path) -> None:
        self.python = python

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Run a function of `reference_side.py` and return what it returned."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.pkl"
            done = subprocess.run(
                [
                    str(self.python),
                    str(HERE / "reference_side.py"),
                    command,
                    json.dumps(arguments, default=str),
                    str(result),
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"the reference failed at {command}: {done.stderr[-600:]}"
            return pickle.loads(result.read_bytes())


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Give the reference, installed on first use and kept in the user's cache folder.

    `PIPESTREAM_REFERENCE_PYTHON` names the interpreter of an environment to use instead.
    """
    try:
        return Reference(reference_python())
    except ReferenceUnavailableError as error:
        pytest.skip(str(error))
