"""Where chunks are worked on: threads, or other processes; each sample once."""

import logging
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from prefect_pipestream import DataStream, Sample, SamplesSequence, undo_run
from prefect_pipestream.blocks import ReadWriteUnderfolder
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.items import PngImageItem
from prefect_pipestream.items.registry import CLASS_BY_EXTENSION
from prefect_pipestream.reporting.reports import ChunkReport
from prefect_pipestream.sequences import SampleStage, resolve_stage
from prefect_pipestream.stages.noted import is_data_only, is_own
from prefect_pipestream.storage.cores import usable_cores
from prefect_pipestream.work import sample_process, workplaces
from prefect_pipestream.work.chunk import ChunkRun, ChunkStopped, Indices, Transform
from prefect_pipestream.work.chunk_task import Stop
from prefect_pipestream.work.guard import run_guarded
from prefect_pipestream.work.limits import Limits
from prefect_pipestream.work.workplaces import Workplaces, hold_each_other_up, is_all_data

LOG = logging.getLogger(__name__)


@pytest.mark.parametrize(
    ("share", "threads", "do_they"),
    [
        (0.95, 2, False),  # codecs do the work
        (0.8, 8, False),
        (0.5, 2, True),  # Python does
        (0.13, 8, True),
        (0.1, 2, False),  # the disk does, or the network
        (0.0, 4, False),
        (0.9, 1, False),
    ],
)
def test_threads_hold_each_other_up_where_one_core_is_all_they_use(
    share: float, threads: int, do_they: bool
) -> None:
    assert hold_each_other_up(share, threads) is do_they


@pytest.fixture(autouse=True)
def own_item_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests have made item classes of their own, which are there for the whole process."""
    own = {name: cls for name, cls in CLASS_BY_EXTENSION.items() if is_own(cls)}
    monkeypatch.setattr(workplaces, "CLASS_BY_EXTENSION", own)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = np.zeros((4, 4), np.uint8)
    samples = [Sample({"image": PngImageItem(image + idx)}) for idx in range(40)]
    SamplesSequence.from_list(samples).to_underfolder(tmp_path / "images").run()
    return tmp_path / "images"


def chunk_of(
    folder: Path, indices: range, kind: type[ChunkRun] = ChunkRun, **more: Any
) -> ChunkRun:
    stream = DataStream.read_write_underfolder(folder, run_key="here and there").part(indices)
    tag = f"from {indices[0]}"
    return kind(stream, stream, Transform(["invert"]), None, 0, tag, LOG, **more)


def values_of(folder: Path) -> list[int]:
    return [int(sample["image"]()[0, 0]) for sample in DataStream.read_write_underfolder(folder)]


class Held(ChunkRun):
    """A chunk that has its place until it is let go."""

    begun = threading.Semaphore(0)
    go = threading.Event()

    def run(self, indices: Indices) -> ChunkReport:
        self.begun.release()
        assert self.go.wait(60)
        return super().run(indices)


@pytest.fixture
def held() -> Iterator[type[Held]]:
    class Own(Held):
        begun = threading.Semaphore(0)
        go = threading.Event()

    yield Own
    Own.go.set()


def test_a_process_takes_chunks_where_the_thread_has_one(folder: Path, held: type[Held]) -> None:
    places = Workplaces(2, 40, LOG)
    here, apart = range(20), range(20, 40)
    chunk = chunk_of(folder, apart)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(places.work_on, chunk_of(folder, here, held), here)
        assert held.begun.acquire(timeout=60)
        places.become_processes(chunk)
        assert places.work_on(chunk, apart).counts["written"] == 20  # the only thread is taken
        assert not first.done()
        held.go.set()
        assert first.result(60).counts["written"] == 20
    assert values_of(folder) == [255 - idx for idx in range(40)]
    undo_run(folder, "here and there")
    assert values_of(folder) == list(range(40))


def test_a_thread_works_where_no_process_can_be_started(
    folder: Path, held: type[Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Workplaces(2, 40, LOG)
    here, there = range(20), range(20, 40)
    chunk = chunk_of(folder, there)
    monkeypatch.setattr(sys, "executable", str(folder / "no python"))
    with ThreadPoolExecutor() as pool:
        first = pool.submit(places.work_on, chunk_of(folder, here, held), here)
        assert held.begun.acquire(timeout=60)
        places.become_processes(chunk)
        assert places.work_on(chunk, there).counts["written"] == 20
        held.go.set()
        first.result(60)


def test_a_thread_goes_on_where_processes_die(
    folder: Path, held: type[Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Workplaces(2, 40, LOG)
    here, there = range(20), range(20, 40)
    chunk = chunk_of(folder, there)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(places.work_on, chunk_of(folder, here, held), here)
        assert held.begun.acquire(timeout=60)
        places.become_processes(chunk)
        assert places.work_on(chunk, there[:10]).counts["written"] == 10
        for process in sample_process._idle:  # as the system does that lacks memory
            process.close()
        monkeypatch.setattr(sys, "executable", str(folder / "no python"))
        assert places.work_on(chunk, there[10:]).counts["written"] == 10
        held.go.set()
        first.result(60)
    assert values_of(folder) == [255 - idx for idx in range(40)]


def test_a_run_that_is_almost_over_starts_no_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workplaces, "hold_each_other_up", lambda share, threads: True)
    monkeypatch.setattr(Workplaces, "become_processes", lambda *_: pytest.fail("started"))
    monkeypatch.setattr(workplaces, "_MEASURED_S", 0.0)
    places = Workplaces(2, 40, LOG)
    for part in (range(39), range(39, 40)):
        assert places.work_on(chunk_of(folder, part), part).counts["written"] == len(part)
        assert places.are_settled


def test_what_is_set_of_pillow_holds_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "0_image.jpeg"
    Image.fromarray(image).save(file)
    file.write_bytes(file.read_bytes()[:-1000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    report = run_guarded(chunk_of(tmp_path, range(1)), range(1), Limits())
    assert report.counts["written"] == 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    stream = DataStream.read_write_underfolder(tmp_path, run_key="again").part(range(1))
    chunk = ChunkRun(stream, stream, Transform(["invert"]), None, 0, "one", LOG)
    assert run_guarded(chunk, range(1), Limits()).counts["failed"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is that of the start")
def test_new_files_of_a_process_have_the_access_of_now(folder: Path) -> None:
    for begin, mask in ((0, 0o022), (20, 0o077)):  # by one process, which is used again
        part = range(begin, begin + 20)
        chunk = chunk_of(folder, part)
        chunk.transform = Transform({"set-meta": {"key_path": "new.a", "value": 1}})
        before = os.umask(mask)
        try:
            assert run_guarded(chunk, part, Limits()).counts["written"] == 20
        finally:
            os.umask(before)
        (made,) = (folder / "data").glob(f"*{begin:02d}_new.*")
        assert made.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_chunk_that_waits_for_a_place_can_be_stopped(folder: Path, held: type[Held]) -> None:
    places = Workplaces(1, 40, LOG)
    stop = Stop(places)
    here, there = range(20), range(20, 40)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(places.work_on, chunk_of(folder, here, held), here)
        assert held.begun.acquire(timeout=60)
        second = pool.submit(places.work_on, chunk_of(folder, there, stop=stop), there)
        stop.set()
        with pytest.raises(ChunkStopped):
            second.result(60)
        held.go.set()
        first.result(60)
    assert pickle.loads(pickle.dumps(stop)).places is None  # elsewhere there are other places


class Own(SampleStage, title="own-of-workplaces"):
    """A stage that this package knows nothing of."""

    def __call__(self, sample: Sample) -> Sample:
        return sample


class Like(dict[str, int]):
    """What may do anything, though it is a mapping."""


@pytest.mark.parametrize(
    ("spec", "is_data"),
    [
        ("identity", True),
        (
            [{"invert": {"images": ["image"]}}, {"set-meta": {"key_path": "m.a", "value": [1]}}],
            True,
        ),
        ({"set-meta": {"key_path": "m.a", "value": object()}}, False),
        ("item-info", False),  # it counts
        ({"timer": {"stage": "identity"}}, False),
        ({"reencode": {"item_class": "PngImageItem"}}, True),
        ({"set-meta": {"key_path": "m.a", "value": Like()}}, False),
        (["identity", Own()], False),
        (["identity", lambda sample: sample], False),
    ],
)
def test_what_is_data_only(spec: Any, is_data: bool) -> None:
    assert is_data_only(resolve_stage(spec, allow_callable=True)) is is_data


def test_streams_with_code_of_the_users_stay_in_this_process(folder: Path) -> None:
    plain = DataStream.read_write_underfolder(folder)
    assert plain.is_all_data
    assert plain.part(range(3)).is_all_data
    assert not DataStream.read_write_underfolder(folder, allow_pickle=True).is_all_data
    assert not plain.checking(lambda items: []).is_all_data
    read = SamplesSequence.from_underfolder(folder)
    for source, before in ((read.map("identity"), []), (read, [{"map": {"stage": "identity"}}])):
        pipe = [*before, {"to_underfolder": {"folder": str(folder.parent / "other")}}]
        assert not DataStream(source, pipe).is_all_data
    chunk = chunk_of(folder, range(3))
    assert is_all_data(chunk)
    workplaces.CLASS_BY_EXTENSION[".own"] = type("OwnItem", (PngImageItem,), {})
    assert not is_all_data(chunk)


@pytest.mark.usefixtures("prefect_api")
def test_a_function_sees_all_samples_in_its_own_process(folder: Path) -> None:
    seen = []

    def note(sample: Sample) -> None:
        seen.append(sample.origin)

    report = process_samples(ReadWriteUnderfolder(folder=folder), note)
    assert report.counts["skipped"] == len(seen) == 40


@pytest.mark.usefixtures("prefect_api")
def test_a_flow_whose_threads_become_processes_does_each_sample_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workplaces, "hold_each_other_up", lambda share, threads: True)
    monkeypatch.setattr(workplaces, "_MEASURED_S", 0.0)
    monkeypatch.setattr(workplaces, "_WORTH_S", 0.0)
    apart: list[Indices] = []

    def noted(chunk: ChunkRun, indices: Indices, limits: Limits) -> ChunkReport:
        apart.append(indices)
        return run_guarded(chunk, indices, limits)

    monkeypatch.setattr(workplaces, "run_guarded", noted)
    run_guarded(chunk_of(folder, range(1)), range(0), Limits())  # a process is there at once
    report = process_samples(ReadWriteUnderfolder(folder=folder), ["invert"], chunk_size=4)
    assert report.counts["written"] == report.total == 40
    assert len(apart) > 1 or usable_cores() == 1
    assert values_of(folder) == [255 - idx for idx in range(40)]
    undo_run(folder, report.run_key)
    assert values_of(folder) == list(range(40))
