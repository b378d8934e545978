"""The items of arrays, by the name that they have in pipelime."""

from prefect_pipestream.items.arrays import NpyNumpyItem as NpyNumpyItem
from prefect_pipestream.items.arrays import NumpyItem as NumpyItem
from prefect_pipestream.items.arrays import NumpyRawItem as NumpyRawItem
from prefect_pipestream.items.arrays import TxtNumpyItem as TxtNumpyItem
