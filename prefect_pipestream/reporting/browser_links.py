"""Links from Prefect's UI to the browser, where a block or the environment names its address."""

import warnings

from prefect.runtime import flow_run

from prefect_pipestream.views.addresses import BrowserAddress

_DATASETS = ("target", "dataset", "source")
"""The parameters of flows that may be the dataset: the first that is given is."""


def sample_link(idx: int) -> str:
    """A sample's index as Markdown: a link to its page, where there is a browser."""
    browser = _browser()
    return f"[{idx}]({browser.sample(idx)})" if browser else str(idx)


def run_link(run_key: str) -> str:
    """A run key as Markdown: as code, and with a link to its page where there is a browser."""
    browser = _browser()
    return f"`{run_key}`" + (f" ([in the browser]({browser.run(run_key)}))" if browser else "")


def review_link(review_id: str) -> str:
    """A link to the page of a review as Markdown; empty where there is no browser."""
    browser = _browser()
    said = "Decide sample by sample, in the browser"
    return f"[{said}]({browser.review(review_id)})" if browser else ""


def _browser() -> BrowserAddress | None:
    try:
        given = _address_of_block()
        return BrowserAddress.of_environment() if given is None else BrowserAddress.of(given)
    except ValueError as error:
        warnings.warn(f"{error} There are no links to the browser.", stacklevel=3)
        return None


def _address_of_block() -> str | None:
    """What the block of the dataset says that the flow run writes, or else is about."""
    given = flow_run.parameters
    block = next((given[name] for name in _DATASETS if given.get(name) is not None), None)
    address = getattr(block, "browser_url", None)
    return None if address is None else str(address)
