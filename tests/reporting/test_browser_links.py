"""Links from Prefect's UI to the browser, where its address is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from pydantic import ValidationError

from prefect_pipestream.blocks import OutputUnderfolder, PipedDataStream, ReadWriteUnderfolder
from prefect_pipestream.reporting.browser_links import review_link, run_link, sample_link
from prefect_pipestream.reporting.markdown import Failure, failures_section
from prefect_pipestream.views.addresses import BrowserAddress

NAME = "PIPESTREAM_BROWSER_URL"


def test_failed_samples_runs_and_reviews_lead_to_the_browser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(NAME, "https://data.example.org/?token=secret")
    table = failures_section([Failure(3, "why", 1)], 1, None, named=sample_link)
    assert "| [3](https://data.example.org/sample/3) | 1 | why |" in table
    key = "a (b)/c]"
    page = "https://data.example.org/run?key=a%20%28b%29%2Fc%5D"
    assert run_link(key) == f"`{key}` ([in the browser]({page}))"
    assert "(https://data.example.org/reviews/r%201)" in review_link("r 1")


def test_an_address_is_as_browsers_write_it() -> None:
    for given in ("HTTPS://Data.Example.org:443", "https://data.example.org/#a"):
        assert BrowserAddress.of(given).root == "https://data.example.org"
    assert BrowserAddress.of("http://[::1]:80").root == "http://[::1]"
    assert BrowserAddress.of("http://x:8765").root == "http://x:8765"


def test_without_a_browser_there_are_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert (sample_link(3), run_link("k"), review_link("r")) == ("3", "`k`", "")


@pytest.mark.parametrize(
    "given", ["javascript:alert(1)", "data.example.org", "http://", "https://data.example.org/path"]
)
def test_what_is_no_address_is_warned_of(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, given)
    with pytest.warns(UserWarning, match="expected an address without a path"):
        assert sample_link(3) == "3"


HERE = ReadWriteUnderfolder(folder=Path("a"), browser_url="HTTPS://data.example.org:443/")
NOWHERE = ReadWriteUnderfolder(folder=Path("a"))
THERE = PipedDataStream(input=[], output_pipe=[], browser_url="http://there:8765")


@flow
def about(dataset: Any) -> str:
    return sample_link(3)


@flow
def between(source: Any, target: Any = None) -> str:
    return sample_link(3)


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(
    ("called", "address"),
    [
        (lambda: about(HERE), "https://data.example.org"),
        (lambda: about(NOWHERE), "http://env"),
        (lambda: about(Path("a")), "http://env"),
        (lambda: between(HERE), "https://data.example.org"),
        (lambda: between(HERE, THERE), "http://there:8765"),
        (lambda: between(HERE, OutputUnderfolder(folder=Path("b"))), "http://env"),
    ],
)
def test_links_of_a_flow_run_lead_where_the_block_of_its_dataset_says(
    called: Callable[[], str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, "http://env")
    assert called() == f"[3]({address}/sample/3)"


def test_a_block_takes_no_address_that_is_none() -> None:
    assert ReadWriteUnderfolder(folder=Path("a"), browser_url="").browser_url is None
    with pytest.raises(ValidationError, match="browser_url='javascript:alert"):
        ReadWriteUnderfolder(folder=Path("a"), browser_url="javascript:alert(1)")
