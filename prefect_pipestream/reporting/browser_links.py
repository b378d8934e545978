"""Links from Prefect's UI to the browser, where the flow run's environment names its address."""

import warnings

from prefect_pipestream.views.addresses import BrowserAddress


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
        return BrowserAddress.of_environment()
    except ValueError as error:
        warnings.warn(f"{error} There are no links to the browser.", stacklevel=3)
        return None
