"""The names of pipelime: none is missing here, and the page of the docs says what each is."""

from tests.interop import public_surface


def test_no_name_is_missing() -> None:
    rows = public_surface.rows()
    assert [f"{row.name}: {row.why}" for row in rows if row.status == "missing"] == []


def test_no_reason_is_left_over() -> None:
    assert public_surface.stale_reasons() == []


def test_the_page_is_up_to_date() -> None:
    made = public_surface.page()
    assert public_surface.PAGE.read_text() == made, "run: python -m tests.interop.public_surface"
