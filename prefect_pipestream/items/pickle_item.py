"""The item of pickles, by the name that it has in pipelime."""

from prefect_pipestream.items.opaque import PickleItem as PickleItem
