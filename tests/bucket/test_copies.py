"""What is copied in one bucket is copied by the store itself, and is what a sample had."""

import itertools
from pathlib import Path

import numpy as np
from obstore.store import MemoryStore

from prefect_pipestream.items import PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Address, Place
from prefect_pipestream.storage.store import Store
from prefect_pipestream.underfolder import undo_run
from tests.bucket.stores import ROOT, md5, process

NUMBERS = itertools.count()


def sample_of(number: int) -> Sample:
    image = PngImageItem(np.full((40, 50), number, np.uint8))
    return Sample({"image": image, "metadata": YamlMetadataItem({"number": number})})


def made(place: Place, samples: int = 3) -> DataStream:
    stream = DataStream.create_new_underfolder(place, run_key="make")
    with stream.commit_group() as batch:
        for number in range(samples):
            batch.set_output(number, sample_of(number))
    return DataStream.read_write_underfolder(place)


def numbers(stream: DataStream) -> list[tuple[int, int]]:
    return [
        (int(sample["image"]()[0, 0]), sample["metadata"]()["number"])
        for sample in (stream[int(idx)] for idx in stream.indices())
    ]


def is_content(request: str) -> bool:
    """Whether a request reads or writes a content, which passes the network."""
    verb, _, key = request.partition(" ")
    return verb in ("read", "written") and ("objects/" in key or key.startswith("data/"))


@md5
def test_a_sample_is_copied_in_a_bucket_by_the_store_alone(md5: bool) -> None:
    objects = MemoryStore()
    with process(objects, md5=md5):
        made(ROOT)
    with process(objects, md5=md5) as store:
        stream = DataStream.read_write_underfolder(ROOT, run_key="copy")
        store.requests.clear()
        stream.set_output(3, stream[1])
        sent = [one for one in store.requests if is_content(one)]
        print(f"{len(store.requests)} requests, {len(sent)} of them with contents")
        assert not sent or not md5  # where copies are called otherwise, they are read to be known
        assert numbers(stream) == [(0, 0), (1, 1), (2, 2), (1, 1)]
        stream.set_output(1, sample_of(9))
        assert numbers(stream)[3] == (1, 1)
        undo_run(ROOT, "copy")
        assert numbers(stream) == [(0, 0), (1, 1), (2, 2)]


def test_what_was_decoded_and_not_changed_is_copied_by_the_store_too() -> None:
    objects = MemoryStore()
    with process(objects, md5=True) as store:
        made(ROOT)
        stream = DataStream.read_write_underfolder(ROOT)
        sample = stream[1]
        assert sample["image"]()[0, 0] == 1
        changed = sample.set_value("metadata", {"number": 5})
        store.requests.clear()
        stream.set_output(3, changed)
        sent = [one for one in store.requests if is_content(one)]
        assert [one.partition(" ")[0] for one in sent] == ["written"]
        assert numbers(stream)[3] == (1, 5)


@md5
def test_what_others_put_in_place_is_what_is_copied(md5: bool) -> None:
    objects = MemoryStore()
    with process(objects, md5=md5) as store:
        made(ROOT)
        Store.put(store, "data/1_metadata.yaml", b"number: 77\n")
        Store.put(store, "data/9_metadata.yaml", b"number: 99\n")
        stream = DataStream.read_write_underfolder(ROOT)
        stream.set_output(3, stream[1])
        stream.set_output(4, stream[9])
        assert stream[3]["metadata"]() == {"number": 77}
        assert stream[4]["metadata"]() == {"number": 99}


def test_a_sample_that_was_taken_is_copied_as_it_was() -> None:
    objects = MemoryStore()
    with process(objects, md5=True):
        stream = made(ROOT)
        taken = stream[1]
        DataStream.read_write_underfolder(ROOT).set_output(1, sample_of(9))
        stream.set_output(3, taken)
        assert numbers(stream) == [(0, 0), (9, 9), (2, 2), (1, 1)]


def test_what_is_kept_no_more_is_read_where_it_is() -> None:
    objects = MemoryStore()
    with process(objects, md5=True) as store:
        stream = made(ROOT)
        for stat in list(Store.objects_in(store, ".pipestream/objects")):
            Store.delete(store, stat.key)
        stream.set_output(3, stream[1])
        assert numbers(stream)[3] == (1, 1)


def test_what_no_store_can_copy_is_read_and_sent(tmp_path: Path) -> None:
    places: list[Place] = [
        tmp_path / "here",
        *(Address.of(f"memory://copies-{next(NUMBERS)}/parts") for _ in range(2)),
    ]
    for source in places:
        made(source)
    for number, (source, target) in enumerate(itertools.permutations(places, 2)):
        stream = DataStream.read_write_underfolder(target)
        stream.set_output(10 + number, SamplesSequence.from_underfolder(source)[1])
        assert numbers(stream)[-1] == (1, 1)
