"""Several holders of samples of one dataset: no change of one swallows that of another."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest

from prefect_pipestream.errors import ConflictError
from prefect_pipestream.items import (
    BmpImageItem,
    Item,
    JsonMetadataItem,
    PngImageItem,
    YamlMetadataItem,
)
from prefect_pipestream.review import apply_review, compute_review
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage.address import Place, is_address
from tests.dataset_files import Files, content_of
from tests.underfolder.conftest import run_of


def png(value: int) -> PngImageItem:
    return PngImageItem(np.full((2, 3), value, np.uint8))


@pytest.fixture
def folder(new_place: Place) -> Place:
    """A dataset of four samples, each of an image that holds the sample's index."""
    for idx in range(4):
        Files(new_place)[f"data/{idx:03d}_image.png"] = content_of(png(idx))
    return new_place


@pytest.fixture
def stream(folder: Place) -> DataStream:
    return DataStream.read_write_underfolder(folder)


def with_image(sample: Sample, value: int) -> Sample:
    return sample.set_item("image", png(value))


def image(stream: DataStream, idx: int) -> int:
    return int(stream[idx]["image"]()[0, 0])


def names(folder: Place, idx: int) -> list[str]:
    return Files(folder).of_sample(idx)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (YamlMetadataItem({"by": 1}), YamlMetadataItem({"by": 2})),
        (YamlMetadataItem({"by": 1}), JsonMetadataItem({"by": 2})),
        (JsonMetadataItem({"by": 1}), YamlMetadataItem({"by": 2})),
    ],
)
@pytest.mark.parametrize("zfill", [None, 6])
def test_of_two_that_add_an_item_in_any_format_the_second_is_refused(
    folder: Place, first: Item, second: Item, zfill: int | None
) -> None:
    stream = DataStream.read_write_underfolder(folder)
    other = DataStream.read_write_underfolder(folder, zfill=zfill)
    one, two = stream[0], other[0]
    stream.set_output(0, one.set_item("meta", first))

    with pytest.raises(ConflictError):
        other.set_output(0, two.set_item("meta", second), keys=["meta"])

    assert stream[0]["meta"]() == {"by": 1}
    other.set_output(0, other[0].set_item("meta", second), keys=["meta"])
    assert stream[0]["meta"]() == {"by": 2}


@pytest.mark.usefixtures("listed_at_once")
def test_a_second_file_of_an_item_that_somebody_put_beside_it_is_not_dropped(
    stream: DataStream, folder: Place
) -> None:
    sample = stream[0]
    second = BmpImageItem(np.full((2, 3), 9, np.uint8))
    Files(folder)["data/000_image.bmp"] = content_of(second)

    with pytest.raises(ConflictError):
        stream.set_output(0, with_image(sample, 50))

    assert names(folder, 0) == ["000_image.bmp", "000_image.png"]


def test_an_item_that_came_in_another_format_after_a_review_was_computed_stays(
    stream: DataStream, folder: Place
) -> None:
    def add(sample: Sample) -> Sample:
        return sample.set_item("meta", YamlMetadataItem({"by": "review"}))

    review = compute_review(folder, add, "r", indices=[0, 1])
    stream.set_output(0, stream[0].set_item("meta", JsonMetadataItem({"by": "somebody"})))

    assert apply_review(review, [0, 1], {}).conflicts == (0,)
    assert stream[0]["meta"]() == {"by": "somebody"}
    assert stream[1]["meta"]() == {"by": "review"}


def test_an_item_that_somebody_replaced_where_it_was_written_is_written_again(
    stream: DataStream,
) -> None:
    third = stream[3]["image"]
    stream.set_output(0, stream[0].set_item("image", third))
    stream.set_output(0, with_image(stream[0], 77))

    stream.set_output(0, stream[0].set_item("image", third))

    assert image(stream, 0) == 3


def test_a_copy_under_another_key_stays_as_it_was_copied(stream: DataStream) -> None:
    sample = stream[0].duplicate_key("image", "before")
    for value in (50, 60):
        stream.set_output(0, with_image(sample, value))

    assert stream[0]["before"]()[0, 0] == 0
    assert image(stream, 0) == 60


def test_a_stream_built_on_a_reader_that_does_not_watch_swallows_nothing_either(
    folder: Place,
) -> None:
    reader = SamplesSequence.from_underfolder(folder)
    assert len(reader) == 4
    output = {"to_underfolder": {"folder": folder, "exists_ok": True}}
    stream = DataStream(reader, [output])
    one, two = stream[0], stream[0]
    stream.set_output(0, with_image(one, 50))

    with pytest.raises(ConflictError):
        stream.set_output(0, with_image(two, 60))

    assert image(stream, 0) == 50
    stream.set_output(4, Sample({"image": png(70)}))
    assert image(stream, 4) == 70


def test_in_a_group_too_the_second_is_refused_and_told(stream: DataStream) -> None:
    one, two, other = stream[0], stream[0], stream[1]
    stream.set_output(0, with_image(one, 50))  # by the same run, whose ledger has the sample

    with pytest.raises(ConflictError) as caught, stream.commit_group() as group:  # noqa: PT012
        group.set_output(0, with_image(two, 60))
        group.set_output(1, with_image(other, 70))

    assert caught.value.indices == [0]
    assert (image(stream, 0), image(stream, 1)) == (50, 70)


@pytest.mark.parametrize("is_grouped", [False, True], ids=["alone", "in groups"])
@pytest.mark.parametrize("is_shared", [False, True], ids=["a stream each", "one stream"])
def test_threads_that_count_in_one_sample_lose_no_count(
    folder: Place, stream: DataStream, is_shared: bool, is_grouped: bool
) -> None:
    stream.set_output(0, Sample({"count": YamlMetadataItem({"n": 0})}))
    all_began = threading.Barrier(4)

    def count() -> int:
        own = stream if is_shared else DataStream.read_write_underfolder(folder)
        all_began.wait()
        return sum(increment(own, is_grouped) for _ in range(25))

    with ThreadPoolExecutor(4) as pool:
        counts = [future.result() for future in [pool.submit(count) for _ in range(4)]]

    assert stream[0]["count"]() == {"n": sum(counts)}
    assert sum(counts) > 0


def increment(stream: DataStream, is_grouped: bool) -> bool:
    """Counts one up in the first sample, unless another thread does meanwhile."""
    try:
        with stream.commit_group() if is_grouped else nullcontext(stream) as output:
            sample = stream[0]
            output.set_output(0, sample.set_value("count", {"n": sample["count"]()["n"] + 1}))
    except ConflictError:
        return False
    return True


@pytest.mark.parametrize("is_grouped", [False, True], ids=["alone", "in a group"])
def test_an_image_that_another_holder_wrote_in_another_format_is_a_conflict(
    stream: DataStream, folder: Place, is_grouped: bool
) -> None:
    """The new file is to keep what the old one has beside its pixels: that one is gone."""
    one, two = stream[0], stream[0]
    stream.set_output(0, one.set_item("image", BmpImageItem(np.full((2, 3), 50, np.uint8))))

    told = "Sample 0, item 'image': another writer"
    if is_address(folder):  # where the old file is still read
        told = "another writer changed sample 0"
    with (
        pytest.raises(ConflictError, match=told) as caught,
        stream.commit_group() if is_grouped else nullcontext(),
    ):
        stream.set_output(0, two.set_value("image", np.full((2, 3), 60, np.uint8)))

    assert caught.value.indices == [0]
    assert names(folder, 0) == ["000_image.bmp"]
    assert image(stream, 0) == 50
    stream.set_output(0, stream[0].set_value("image", np.full((2, 3), 60, np.uint8)))
    assert image(stream, 0) == 60


# -- groups in groups ----------------------------------------------------------------------


def test_a_group_in_another_is_committed_as_it_is_left(stream: DataStream) -> None:
    with stream.commit_group(tag="outer") as outer:
        outer.set_output(0, with_image(stream[0], 50))
        with stream.commit_group(tag="inner") as inner:
            inner.set_output(1, with_image(stream[1], 60))
        assert [image(stream, idx) for idx in range(2)] == [0, 60]
        outer.set_output(2, with_image(stream[2], 70))
        assert image(stream, 2) == 2
    assert (image(stream, 0), image(stream, 2)) == (50, 70)
    key = stream.run_key
    assert run_of(stream.output_folder, key).done_indices("outer") == {0, 2}
    assert run_of(stream.output_folder, key).done_indices("inner") == {1}


@pytest.mark.parametrize("error", [KeyError("bad"), KeyboardInterrupt()])
def test_after_an_error_in_an_inner_group_the_outer_goes_on(
    stream: DataStream, error: BaseException
) -> None:
    with stream.commit_group() as outer:
        with pytest.raises(type(error)), stream.commit_group() as inner:  # noqa: PT012
            inner.set_output(0, with_image(stream[0], 50))
            raise error
        assert image(stream, 0) == 50
        outer.set_output(1, with_image(stream[1], 60))
        assert image(stream, 1) == 1
    assert image(stream, 1) == 60


def test_after_a_conflict_in_an_inner_group_the_outer_goes_on(stream: DataStream) -> None:
    late = stream[0]
    stream.set_output(0, with_image(stream[0], 50))
    with stream.commit_group() as outer:
        with pytest.raises(ConflictError), stream.commit_group() as inner:
            inner.set_output(0, with_image(late, 60))
        outer.set_output(1, with_image(stream[1], 70))
        assert image(stream, 1) == 1
    assert (image(stream, 0), image(stream, 1)) == (50, 70)


def test_what_is_set_by_itself_inside_of_a_group_is_committed_at_once(stream: DataStream) -> None:
    late = stream[0]
    with pytest.raises(ConflictError), stream.commit_group() as group:  # noqa: PT012
        group.set_output(0, with_image(late, 50))
        stream.set_output(0, with_image(stream[0], 60))
        assert image(stream, 0) == 60
    assert image(stream, 0) == 60


def test_three_groups_deep_the_last_change_of_a_sample_counts(stream: DataStream) -> None:
    mine = stream[0]
    with stream.commit_group() as outer:
        outer.set_output(0, with_image(mine, 50))
        with stream.commit_group() as middle:
            middle.set_output(0, with_image(mine, 60))
            with stream.commit_group() as inner:
                inner.set_output(0, with_image(mine, 70))
            middle.set_output(0, with_image(mine, 80))
        outer.set_output(0, with_image(mine, 90))
    assert image(stream, 0) == 90


@pytest.mark.parametrize("is_grouped", [False, True], ids=["alone", "in groups"])
@pytest.mark.parametrize("changes", [[], [{"map": "identity"}]], ids=["as it is", "changed"])
def test_what_an_output_pipe_says_of_conflicts_holds(
    folder: Place, changes: list[dict[str, str]], is_grouped: bool
) -> None:
    """Where the stream says nothing of them; and a pipe before the writing hides none."""
    reader = SamplesSequence.from_underfolder(folder)
    kept, strict = (
        DataStream(
            reader, [*changes, {"to_underfolder": {"folder": folder, "exists_ok": True, **m}}]
        )
        for m in ({"on_conflict": "overwrite"}, {})
    )
    late, too_late = kept[0], strict[0]
    strict.set_output(0, with_image(strict[0], 50))

    with kept.commit_group() if is_grouped else nullcontext(kept) as output:
        output.set_output(0, with_image(late, 60))
    assert image(kept, 0) == 60

    with (
        pytest.raises(ConflictError),
        strict.commit_group() if is_grouped else nullcontext(strict) as output,
    ):
        output.set_output(0, with_image(too_late, 70))
