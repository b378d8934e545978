"""The names of pipelime: none is missing here, and the page of the docs says what each is."""

import sys
from collections.abc import Iterator

import pytest

from tests.interop import public_surface


@pytest.fixture(autouse=True)
def _no_stand_in_is_left() -> Iterator[None]:
    """Other tests of this process ask whether PyTorch is there."""
    known = set(sys.modules)
    yield
    for name in {*sys.modules} - known:
        if name.partition(".")[0] == "torch" or name == "prefect_pipestream.sequences.torch":
            del sys.modules[name]


def test_no_name_is_missing() -> None:
    rows = public_surface.rows()
    assert [f"{row.name}: {row.why}" for row in rows if row.status == "missing"] == []


def test_no_reason_is_left_over() -> None:
    assert public_surface.stale_reasons() == []


def test_the_page_is_up_to_date() -> None:
    made = public_surface.page()
    assert public_surface.PAGE.read_text() == made, "run: python -m tests.interop.public_surface"
