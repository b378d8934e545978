"""A web application on a dataset: see it, change samples, save, take back.

Its pages are in ``page/``: plain modules that a browser runs as they are. The server knows nothing
of flows; it works on the data layer as anybody's own screen could (docs/own-screens.md).
"""

from prefect_pipestream.browser.access import Access
from prefect_pipestream.browser.app import create_app
from prefect_pipestream.browser.server import serve

__all__ = ["Access", "create_app", "serve"]
