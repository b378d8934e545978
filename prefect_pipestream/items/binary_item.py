"""The item of raw bytes, by the name that it has in pipelime."""

from prefect_pipestream.items.opaque import BinaryItem as BinaryItem
