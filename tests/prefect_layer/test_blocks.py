import functools
import http.server
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from prefect_pipestream.blocks import (
    CreateNewUnderfolder,
    OutputUnderfolder,
    PipedDataStream,
    ReadWriteUnderfolder,
)
from prefect_pipestream.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    PipeBuildingError,
)
from prefect_pipestream.storage.address import Place
from tests.dataset_files import Files, beside, made_at

from .datasets import image_of, make_dataset

BLOCKS = [ReadWriteUnderfolder, CreateNewUnderfolder, OutputUnderfolder, PipedDataStream]


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def logo_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A logo on loopback: the real one is on the internet."""
    folder = tmp_path_factory.mktemp("logo")
    Image.new("RGB", (200, 200)).save(folder / "logo.png")
    handler = functools.partial(_QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/logo.png"
        server.shutdown()


class TestBlockStandards(BlockStandardTestSuite):
    @pytest.fixture(params=BLOCKS)
    def block(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, logo_address: str
    ) -> type[Block]:
        monkeypatch.setattr(request.param, "_logo_url", logo_address)
        return request.param


@pytest.mark.parametrize("block", BLOCKS)
def test_logo_is_one_that_a_browser_can_load(block: type[Block]) -> None:
    assert str(block._logo_url).startswith("https://")


def test_block_types_have_keys_of_their_own() -> None:
    assert len({block.__dispatch_key__() for block in BLOCKS}) == len(BLOCKS)


def test_read_write_underfolder_opens_a_stream_that_reads_and_writes(new_place: Place) -> None:
    folder = made_at(new_place, make_dataset)
    stream = ReadWriteUnderfolder(folder=folder).open()

    stream.set_output(2, stream[2].set_value("image", 255 - image_of(2)))

    reopened = ReadWriteUnderfolder(folder=folder).open()
    assert len(reopened) == 6
    assert np.array_equal(reopened[2]["image"](), 255 - image_of(2))


def test_missing_dataset_is_an_error_unless_it_need_not_exist(new_place: Place) -> None:
    with pytest.raises(DatasetNotFoundError):
        ReadWriteUnderfolder(folder=new_place).open()

    assert len(ReadWriteUnderfolder(folder=new_place, must_exist=False).open()) == 0


def test_new_dataset_is_refused_to_another_run_and_given_to_its_own(new_place: Place) -> None:
    new = beside(new_place, "new")
    sample = ReadWriteUnderfolder(folder=made_at(new_place, make_dataset)).open()[0]
    block = CreateNewUnderfolder(folder=new, zfill=4)
    block.open("first").set_output(0, sample)

    with pytest.raises(DatasetExistsError):
        block.open("second")

    block.open("first").set_output(1, sample)
    assert "data/0001_image.png" in Files(new)


def test_output_underfolder_updates_what_exists(new_place: Place) -> None:
    new = beside(new_place, "new")
    sample = ReadWriteUnderfolder(folder=made_at(new_place, make_dataset)).open()[0]
    block = OutputUnderfolder(folder=new, zfill=2)

    block.open().set_output(0, sample)
    block.open().set_output(1, sample)

    assert {"data/00_image.png", "data/01_image.png"} <= set(Files(new))


def test_piped_stream_reads_from_any_source(new_place: Place) -> None:
    made_at(new_place, make_dataset)
    out = beside(new_place, "out")
    block = PipedDataStream(
        input=[{"from_underfolder": {"folder": str(new_place)}}, {"slice": {"start": 3}}],
        output_pipe=[{"to_underfolder": {"folder": str(out), "exists_ok": True}}],
    )
    stream = block.open()

    stream.set_output(0, stream[0])

    assert len(stream) == 3
    assert np.array_equal(ReadWriteUnderfolder(folder=out).open()[0]["image"](), image_of(3))


def test_piped_stream_names_what_is_wrong_with_an_operation() -> None:
    with pytest.raises(PipeBuildingError, match="from_underfoldr"):
        PipedDataStream(input=["from_underfoldr"], output_pipe=[]).open()


@pytest.mark.usefixtures("prefect_api")
class TestWithApi:
    def test_saved_block_is_loaded_as_it_was(self, new_place: Place) -> None:
        made_at(new_place, make_dataset)
        ReadWriteUnderfolder(folder=new_place, zfill=5).save("nightly", overwrite=True)

        loaded = ReadWriteUnderfolder.load("nightly")

        assert loaded.folder == new_place
        assert loaded.zfill == 5
        assert len(loaded.open()) == 6

    def test_saved_piped_stream_keeps_its_operations(self) -> None:
        source = [{"from_images": {"folder": "photos", "must_exist": False}}, "data_cache"]
        PipedDataStream(input=source, output_pipe=["x"]).save("photos")

        assert PipedDataStream.load("photos").input == source

    def test_flow_takes_a_saved_block_by_reference(self, new_place: Place) -> None:
        made_at(new_place, make_dataset)
        saved = ReadWriteUnderfolder(folder=new_place).save("by-reference", overwrite=True)

        @flow
        def length(dataset: ReadWriteUnderfolder) -> int:
            return len(dataset.open())

        reference: dict[str, object] = {"$ref": {"block_document_id": saved}}
        assert length(reference) == 6  # type: ignore[arg-type]
