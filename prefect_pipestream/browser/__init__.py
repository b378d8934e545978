"""A web application on a dataset: see it, change samples, save, take back.

Its pages are in ``page/``: plain modules that a browser runs as they are. The server knows nothing
of flows; it works on the data layer as anybody's own screen could (docs/own-screens.md).
"""
