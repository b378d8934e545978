"""Samples in the order of a value in their metadata."""

from typing import Any

import numpy as np
import pytest

from prefect_pipestream import DataStream, Sample
from prefect_pipestream.errors import DatasetError, QueryError
from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.storage.address import Place

VALUES: list[Any] = [3, "b", None, 1.5, "a", True, [1], float("nan"), 3, float("-inf"), 10**400, -2]


@pytest.fixture
def folder(new_place: Place) -> Place:
    stream = DataStream.create_new_underfolder(new_place)
    image = PngImageItem(np.zeros((2, 2), np.uint8))
    for idx, value in enumerate(VALUES):
        stream.set_output(idx, Sample({"m": YamlMetadataItem({"v": value}), "image": image}))
    stream.set_output(len(VALUES), Sample({"image": image}))
    return new_place


def test_numbers_before_text_before_all_else_and_nothing_last(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder)
    ascending = [9, 11, 5, 3, 0, 8, 10, 4, 1, 6]
    assert stream.sorted_by("m.v").indices.tolist() == [*ascending, 2, 7, 12]
    found = stream.sorted_by("m.v", descending=True)
    assert found.indices.tolist() == [6, 1, 4, 10, 0, 8, 3, 5, 11, 9, 2, 7, 12]
    assert found.unread == 0
    assert stream.sorted_by("m.v", [12, 0, 3, 99]).indices.tolist() == [3, 0, 12]
    nothing = stream.sorted_by("m.v", []).indices
    assert (nothing.dtype, len(nothing)) == (np.int64, 0)
    assert stream.sorted_by("no.such").indices.tolist() == list(range(13))


def test_a_part_that_is_read_is_sorted_before_the_rest(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder)
    found = stream.sorted_by("m.v", most_reads=4)
    assert found.unread == 8
    assert set(found.indices.tolist()) == set(range(13))
    while found.unread:
        found = stream.sorted_by("m.v", most_reads=4)
    assert found.indices[:2].tolist() == [9, 11]


def test_what_is_no_metadata_is_refused(folder: Place) -> None:
    stream = DataStream.read_write_underfolder(folder)
    with pytest.raises(QueryError, match="image"):
        stream.sorted_by("image.v")
    with pytest.raises(DatasetError, match="of a folder only"):
        DataStream.create_output_stream(folder).sorted_by("m.v")
