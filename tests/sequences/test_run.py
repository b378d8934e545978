import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest

from prefect_pipestream.errors import SampleError, WorkerDiedError
from prefect_pipestream.items import (
    MetadataItem,
    SerializationMode,
    YamlMetadataItem,
    disable_item_data_cache,
    enable_item_data_cache,
    item_serialization_mode,
    set_item_serialization_mode,
)
from prefect_pipestream.items.settings import is_cached
from prefect_pipestream.sequences import Sample, SamplesSequence


def made_by(function, length=40):
    def generate(idx):
        function(idx)
        return Sample({"x": YamlMetadataItem(idx)})

    return SamplesSequence.from_callable(generator_fn=generate, length=length)


def nothing(idx):
    pass


def children():
    """The processes that this one has started, those included that nobody has waited for."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended just now
            yield from (thread / "children").read_text().split()


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = set(children())
    yield
    assert set(children()) <= before


WORKERS = pytest.mark.parametrize("num_workers", [0, 2])


@WORKERS
def test_run_gives_each_sample_once(num_workers):
    seen, pids = [], set()

    def take(sample, idx):
        seen.append((idx, sample["x"]()))
        pids.add(os.getpid())

    made_by(nothing).run(num_workers=num_workers, sample_fn=take, track_fn=False)
    assert sorted(seen) == [(i, i) for i in range(40)]
    assert pids == {os.getpid()}


@WORKERS
def test_run_keeps_the_order_on_request(num_workers):
    seen = []
    made_by(lambda idx: time.sleep(0.002 * (idx % 5))).run(
        num_workers=num_workers,
        keep_order=True,
        prefetch=3,
        sample_fn=lambda sample: seen.append(sample["x"]()),
        track_fn=False,
    )
    assert seen == list(range(40))


def test_workers_do_the_work_elsewhere(tmp_path):
    made_by(lambda idx: (tmp_path / str(os.getpid())).touch()).run(num_workers=2, track_fn=False)
    pids = {int(path.name) for path in tmp_path.iterdir()}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_negative_number_of_workers_is_one_a_core(tmp_path):
    made_by(lambda idx: (tmp_path / str(os.getpid())).touch(), length=4).run(
        num_workers=-1, track_fn=False
    )
    assert 1 <= len(list(tmp_path.iterdir())) <= len(os.sched_getaffinity(0))


@WORKERS
def test_apply_returns_the_processed_samples_in_order(num_workers):
    doubled = made_by(nothing).map(lambda sample: sample.set_value("x", sample["x"]() * 2))
    done = doubled.apply(num_workers=num_workers, track_fn=False)
    assert [sample["x"]() for sample in done] == [2 * i for i in range(40)]


def test_values_of_classes_made_in_a_function_come_back():
    class Local:
        value = 7

    done = made_by(nothing, 2).map(lambda s: s.set_value("x", {"local": Local()}))
    assert done.apply(num_workers=1, track_fn=False)[1]["x"]()["local"].value == 7


def test_settings_of_item_classes_hold_in_workers():
    with item_serialization_mode("CREATE_NEW_FILE"):
        modes = (
            made_by(nothing, 2)
            .map(lambda s: s.set_value("x", int(s["x"].serialization_mode)))
            .apply(num_workers=1, track_fn=False)
        )
    assert [s["x"]() for s in modes] == [SerializationMode.CREATE_NEW_FILE] * 2


def test_settings_of_the_process_hold_in_workers():
    def modes(sample):
        item = sample["x"]
        return sample.set_value("x", [int(item.serialization_mode), is_cached(type(item))])

    set_item_serialization_mode("DEEP_COPY", YamlMetadataItem)
    enable_item_data_cache(MetadataItem)
    try:
        done = made_by(nothing, 2).map(modes).apply(num_workers=1, track_fn=False)
    finally:
        set_item_serialization_mode("HARD_LINK", YamlMetadataItem)
        disable_item_data_cache(MetadataItem)
    assert done[0]["x"]() == [SerializationMode.DEEP_COPY, True]


def test_an_empty_sequence_starts_no_workers():
    SamplesSequence.from_list([]).run(num_workers=2, track_fn=False)
    assert len(SamplesSequence.from_list([]).apply(num_workers=2, track_fn=False)) == 0


def boom_at_17(idx):
    if idx == 17:
        raise ValueError("boom")


@WORKERS
@pytest.mark.parametrize("keep_order", [True, False])
def test_an_exception_comes_with_the_index_of_its_sample(num_workers, keep_order):
    with pytest.raises(ValueError, match="boom") as caught:
        made_by(boom_at_17).run(num_workers=num_workers, keep_order=keep_order, track_fn=False)
    assert "This was sample 17." in caught.value.__notes__
    if num_workers:
        assert "boom_at_17" in caught.value.__notes__[1]


def test_an_exception_that_cannot_be_pickled_is_told():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__("odd one")

    def fail(idx):
        raise Odd(1, 2)

    with pytest.raises(SampleError, match="Odd: odd one") as caught:
        made_by(fail).run(num_workers=2, track_fn=False)
    assert "This was sample" in caught.value.__notes__[0]


def test_what_cannot_be_sent_to_workers_is_an_error_and_leaves_none(capfd):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot pickle"):
        made_by(lambda idx: lock).run(num_workers=2, track_fn=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [EOFError("short"), BrokenPipeError("no reader")])
def test_an_exception_is_not_mistaken_for_the_end_of_the_workers_owner(error):
    def fail(idx):
        raise error

    with pytest.raises(type(error), match=str(error)):
        made_by(fail, 4).run(num_workers=2, track_fn=False)


@pytest.mark.parametrize(
    ("how", "message", "is_for_memory"),
    [
        (lambda: os.kill(os.getpid(), 9), r"killed by signal 9 \(SIGKILL\)", True),
        (lambda: os.kill(os.getpid(), 40), "killed by signal 40 while", False),  # it has no name
        (lambda: os._exit(3), "exit code 3", False),
        (lambda: sys.exit(4), "exit code 4", False),
    ],
)
@pytest.mark.parametrize("give", [None, lambda sample: None])
def test_a_worker_that_dies_is_an_error_and_no_hang(how, message, is_for_memory, give):
    def die(idx):
        if idx == 17:
            how()

    with pytest.raises(WorkerDiedError, match=f"{message}.*at samples") as caught:
        made_by(die).run(num_workers=2, sample_fn=give, track_fn=False)
    assert ("out of memory" in str(caught.value)) == is_for_memory
    assert "do not simply run again" in str(caught.value)


def test_an_exception_of_sample_fn_ends_the_workers():
    def refuse(sample):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        made_by(lambda idx: time.sleep(0.01)).run(num_workers=2, sample_fn=refuse, track_fn=False)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_owner_is_killed_or_interrupted(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import os, sys, time
from pathlib import Path
from prefect_pipestream.sequences import Sample, SamplesSequence

def work(idx):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(0.05)
    return Sample()

SamplesSequence.from_callable(generator_fn=work, length=100_000).run(num_workers=2)
"""
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    owner = subprocess.Popen(
        [sys.executable, str(script), str(pids)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _until(lambda: len(list(pids.iterdir())) == 2, 30)
    os.killpg(owner.pid, how)  # as Ctrl-C does
    _, told = owner.communicate()
    assert owner.returncode == -how
    assert told.count("KeyboardInterrupt") == (how == signal.SIGINT)  # the owner's alone
    _until(lambda: not any(_is_alive(int(pid.name)) for pid in pids.iterdir()), 10)


def test_what_a_script_without_a_main_guard_defines_is_known_in_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import os
from pathlib import Path
from pydantic import Field
from prefect_pipestream.items import Item
from prefect_pipestream.sequences import *

class TextItem(Item[str]):
    @classmethod
    def file_extensions(cls):
        return (".note",)

    @classmethod
    def decode(cls, stream):
        return stream.read().decode()

    @classmethod
    def encode(cls, value, stream):
        stream.write(value.encode())

class Append(SampleStage, title="append"):
    text: str = Field("!", description="What.")

    def __call__(self, sample):
        return sample.set_value("t", sample["t"]() + self.text)

@sample_stage
def tell_where(sample, inside: str = "owner"):
    return sample.set_value("t", sample["t"]() + ("" if os.getpid() == OWNER else inside))

@piped_sequence
class Twice(SamplesSequence, title="twice"):
    source: SamplesSequence = Field(json_schema_extra={"pipe_source": True})

    def size(self):
        return 2 * len(self.source)

    def get_sample(self, idx):
        return self.source[idx // 2]

OWNER = os.getpid()
print("started")
SamplesSequence.from_list([Sample({"t": TextItem("a")})]).to_underfolder("d").run()
read = SamplesSequence.from_underfolder("d").twice()
read = read.map(Append(text="b")).map(tell_where(inside="c"))
print([(type(s["t"]) is TextItem, s["t"]()) for s in read.apply(num_workers=2)])
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["started", str([(True, "abc"), (True, "abc")])]


def _until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # read in a polling loop
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_runs_in_several_threads_do_not_disturb_each_other():
    results = {}

    def go(name):
        done = made_by(nothing).apply(num_workers=2, track_fn=False)
        results[name] = [sample["x"]() for sample in done]

    threads = [threading.Thread(target=go, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {i: list(range(40)) for i in range(3)}


def test_track_fn_sees_every_sample_and_their_number():
    lengths, seen = [], []

    def track(samples):
        lengths.append(len(samples))
        for sample in samples:
            seen.append(sample)
            yield sample

    made_by(nothing).run(track_fn=track)
    assert (lengths, len(seen)) == ([40], 40)


@WORKERS
def test_track_fn_may_stop_early_or_fail(num_workers):
    made_by(nothing).run(num_workers=num_workers, track_fn=lambda samples: islice(samples, 3))

    def fail(samples):
        raise RuntimeError("tracked")

    with pytest.raises(RuntimeError, match="tracked"):
        made_by(nothing).run(num_workers=num_workers, track_fn=fail)


@pytest.mark.parametrize("track_fn", [True, "Cleaning", None])
def test_without_a_terminal_nothing_is_printed(track_fn, capfd):
    made_by(nothing).run(track_fn=track_fn)
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_progress_bar():
    code = (
        "from prefect_pipestream.sequences import *;"
        "SamplesSequence.from_list([Sample()] * 40).run(track_fn='Cleaning')"
    )
    outer, inner = os.openpty()
    done = subprocess.run([sys.executable, "-c", code], stderr=inner, check=True, timeout=60)
    shown = os.read(outer, 100_000).decode()
    os.close(inner)
    os.close(outer)
    assert done.returncode == 0
    assert "Cleaning" in shown
    assert "40/40" in shown


def test_prefetch_below_one_is_refused():
    with pytest.raises(ValueError, match="prefetch"):
        made_by(nothing).run(prefetch=0)
