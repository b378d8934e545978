"""One stream, used by threads at once and beside programs that write into the folder."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.errors import ConflictError, PipeBuildingError
from prefect_pipestream.items import (
    JsonMetadataItem,
    PngImageItem,
    YamlMetadataItem,
    data_cache,
)
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.address import Place, is_address
from tests.dataset_files import Files, content_of

ROUNDS = 150


@pytest.fixture
def stream(new_place: Place) -> DataStream:
    """A dataset of three samples and a shared item."""
    files = Files(new_place)
    files["meta.yaml"] = content_of(YamlMetadataItem({"factor": 1}))
    for idx in range(3):
        files[f"data/{idx}_image.png"] = content_of(PngImageItem(np.full((4, 4), idx, np.uint8)))
    return DataStream.read_write_underfolder(new_place)


def edit_in_place(stream: DataStream, factor: int) -> None:
    """Writes the shared item as an editor does that does not rename."""
    text = f"factor: {factor}\nnote: {'x' * factor}\n"
    Files(stream.output_folder)["meta.yaml"] = text.encode()


def brighter(sample: Sample) -> Sample:
    return sample.set_value("image", sample["image"]() + 10)


def test_a_thread_that_lists_the_indices_hides_no_write_of_another(stream: DataStream) -> None:
    ended = threading.Event()

    def until_ended(what: Callable[[], object]) -> threading.Thread:
        def loop() -> None:
            while not ended.is_set():
                what()

        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    readers = [until_ended(stream.indices), until_ended(stream.indices)]
    try:
        for idx in range(3, 3 + ROUNDS):
            stream.set_output(idx, Sample({"m": YamlMetadataItem({"number": idx})}))
            assert stream[idx]["m"]() == {"number": idx}
            stream.set_output(idx, Sample({"m": JsonMetadataItem({"number": -idx})}))
            assert stream[idx]["m"]() == {"number": -idx}
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert sum("_m." in name for name in Files(stream.output_folder)) == ROUNDS


def test_a_shared_item_edited_in_place_is_no_conflict_of_samples_read_since(
    stream: DataStream,
) -> None:
    assert stream[0]["meta"]()["factor"] == 1
    edit_in_place(stream, 5)

    sample = stream[1]
    assert sample["meta"]()["factor"] == 5
    stream.set_output(1, brighter(sample))
    stream.set_output(2, brighter(stream[2]), keys=["image"])

    assert stream[1]["image"]()[0, 0] == 11


def test_a_shared_item_edited_since_it_was_used_is_a_conflict(stream: DataStream) -> None:
    first, second = stream[0], stream[1]
    assert first["meta"]()["factor"] == 1
    edit_in_place(stream, 5)
    assert second["meta"]()["factor"] == 5

    with pytest.raises(ConflictError):
        stream.set_output(0, brighter(first))
    stream.set_output(1, brighter(second))


def test_samples_of_a_stream_are_not_cached(stream: DataStream) -> None:
    with data_cache():
        sample = stream[0]
        assert sample["image"]()[0, 0] == 0
        assert sample["meta"]()["factor"] == 1
        stream.set_output(0, Sample({"image": PngImageItem(np.full((4, 4), 99, np.uint8))}))
        edit_in_place(stream, 5)

        # One of a bucket shows all its files as they were when it was taken.
        assert sample["image"]()[0, 0] == (0 if is_address(stream.output_folder) else 99)
        assert stream[2]["meta"]()["factor"] == 5


def test_an_output_pipe_that_would_keep_the_first_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipeBuildingError, match="cache"):
        DataStream(None, ["cache", {"to_underfolder": {"folder": tmp_path / "new"}}])
