"""Queries on a dataset in a bucket: as on one in a folder, and little is read for them twice."""

import numpy as np
import pytest
from obstore.store import MemoryStore

from prefect_pipestream.errors import DatasetError, QueryError, RunNotFoundError
from prefect_pipestream.items import JsonMetadataItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.sequences.where import find
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder import compact
from prefect_pipestream.underfolder.opening import open_dataset
from prefect_pipestream.views.item_thumbnails import Thumbnails
from tests.bucket.stores import ROOT, HostStore, process

SAMPLES = 20


def make(place: Place) -> None:
    made = DataStream.create_new_underfolder(place, zfill=3, run_key="make")
    with made.commit_group() as batch:
        for number in range(SAMPLES):
            items = {
                "image": PngImageItem(np.full((4, 5), number, np.uint8)),
                "metadata": YamlMetadataItem({"number": number, "even": number % 2 == 0}),
                "common": JsonMetadataItem({"site": "here"}, shared=True),
            }
            batch.set_output(number, Sample(items))


@pytest.fixture
def place(new_place: Place) -> Place:
    """Samples with metadata, some of it shared."""
    make(new_place)
    return new_place


def found(place: Place, query: str) -> list[int]:
    return find(open_dataset(place), query).indices.tolist()


def renumber(place: Place, idx: int, number: int, run_key: str = "change") -> None:
    stream = DataStream.read_write_underfolder(place, run_key=run_key)
    stream.set_output(idx, stream[idx].set_value("metadata", {"number": number, "even": False}))


def test_samples_are_found_by_what_became_of_them(place: Place) -> None:
    renumber(place, 1, 100)
    renumber(place, 7, 100)
    assert found(place, "`run:change` == 'written'") == [1, 7]
    assert found(place, "`run:change` == 'written' AND metadata.number == 100") == [1, 7]
    stream = DataStream.read_write_underfolder(place)
    assert stream.found("`run:make` == 'written'", place).indices.tolist() == list(range(SAMPLES))
    sequence = SamplesSequence.from_underfolder(place)
    assert len(sequence.where("`run:change` == 'written'")) == 2
    with pytest.raises(RunNotFoundError):
        found(place, "`run:nothing` == 'written'")
    with pytest.raises(QueryError):
        found(place, "image.size == 1")
    stream.remove(0)
    compact(place)
    with pytest.raises(DatasetError, match="moved samples"):
        found(place, "`run:change` == 'written'")


def reads(store: HostStore) -> list[str]:
    return [request for request in store.requests if request.startswith("read data/")]


@pytest.mark.parametrize("md5", [False, True], ids=["etag of a write", "etag of a content"])
def test_what_was_read_once_is_not_read_again(md5: bool) -> None:
    objects = MemoryStore()
    with process(objects, md5=md5) as store:
        make(ROOT)
        store.put("data/050_metadata.yaml", b"number: 50\n")
        assert found(ROOT, "metadata.number < 3") == [0, 1, 2]
    with process(objects, md5=md5) as store:
        assert found(ROOT, "metadata.number > 18") == [19, 50]
        assert reads(store) == []
        assert len(store.requests) < 20
        renumber(ROOT, 5, 60)
    with process(objects, md5=md5) as store:
        assert found(ROOT, "metadata.number > 18") == [5, 19, 50]
        assert reads(store) == ["read data/005_metadata.yaml"]
    with process(objects, md5=md5) as store:
        assert found(ROOT, "metadata.number > 18") == [5, 19, 50]
        assert reads(store) == []


@pytest.mark.parametrize("md5", [False, True], ids=["etag of a write", "etag of a content"])
def test_a_thumbnail_is_made_once(md5: bool) -> None:
    objects = MemoryStore()

    def picture(idx: int) -> bytes:
        thumbnail = Thumbnails(ROOT).of(DataStream.read_write_underfolder(ROOT)[idx]["image"], 16)
        assert thumbnail is not None
        return thumbnail.content

    with process(objects, md5=md5):
        make(ROOT)
        first = picture(3)
    with process(objects, md5=md5) as store:
        assert picture(3) == first
        assert reads(store) == []
        stream = DataStream.read_write_underfolder(ROOT)
        stream.set_output(3, stream[3].set_value("image", np.full((4, 5), 200, np.uint8)))
        assert picture(3) != first
