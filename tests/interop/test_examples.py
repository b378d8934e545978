"""What people do: every example gives equal results with both packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from examples import EXAMPLES, run_example


@pytest.fixture(scope="module")
def theirs(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    results: dict[str, Any] = reference("run_examples", folder=tmp_path_factory.mktemp("theirs"))
    return results


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_the_same_with_both(
    theirs: dict[str, Any], tmp_path: Path, name: str
) -> None:
    assert not str(theirs[name]).startswith(("TypeError", "AttributeError", "ValidationError"))
    assert run_example("prefect_pipestream", name, tmp_path / "ours") == theirs[name]
