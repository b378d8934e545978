"""Any order of what may happen to a bucket, with and without the log, agrees with a dictionary."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from obstore.store import MemoryStore

from prefect_pipestream.errors import ConflictError, UndoRefusedError
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.storage.store import Store
from prefect_pipestream.underfolder import plan_undo, undo_run
from prefect_pipestream.underfolder.bucket import dataset
from tests.bucket.stores import ROOT, HostStore, process
from tests.sequences.test_stream_machine import (
    IDS,
    KEYS,
    VALUES,
    is_as_known,
    item_of,
    known_of,
    value_of,
)


def content_of(key: str, value: int) -> tuple[bytes, str]:
    """What another program writes for an item, and with which extension."""
    import io

    item = item_of(key, value, False)
    stream = io.BytesIO()
    type(item).encode(item(), stream)
    return stream.getvalue(), item.file_extensions()[0]


class BucketMachine(RuleBasedStateMachine):
    md5 = False

    def __init__(self) -> None:
        super().__init__()
        self.objects = MemoryStore()
        self.around = HostStore(self.objects, md5=self.md5)
        self.model: dict[int, dict[str, int]] = {}
        self.taken: list[tuple[int, Sample, dict[str, int]]] = []
        self.runs = 0
        self.before: dict[str, dict[int, dict[str, int]]] = {}

    @initialize(zfill=st.sampled_from([None, 3]), first=st.dictionaries(IDS, VALUES))
    def make(self, zfill: int | None, first: dict[int, int]) -> None:
        for idx, value in first.items():
            content, _ = content_of("image", value)
            Store.put(self.around, f"data/{idx:03d}_image.png", content)
            self.model[idx] = {"image": value}
        self.zfill = zfill
        self.open()

    def opened(self, run_key: str | None = None) -> DataStream:
        with process(self.objects, md5=self.md5):
            return DataStream.read_write_underfolder(
                ROOT, must_exist=False, zfill=self.zfill, run_key=run_key
            )

    @rule()
    def open(self) -> None:
        self.stream, self.other = self.opened(), self.opened()
        self.taken = []

    @rule(idx=IDS, key=KEYS, value=VALUES, other_class=st.booleans(), by_other=st.booleans())
    def set_item(self, idx: int, key: str, value: int, other_class: bool, by_other: bool) -> None:
        stream = self.other if by_other else self.stream
        sample = stream[idx] if idx < len(stream) else Sample()
        other_class &= key != "meta"  # which runs write, whose undo leaves a file of another kind
        stream.set_output(idx, sample.set_item(key, item_of(key, value, other_class)))
        self.model.setdefault(idx, {})[key] = value

    @rule(values=st.dictionaries(IDS, VALUES, min_size=1), count=st.integers(1, 4))
    def set_in_groups(self, values: dict[int, int], count: int) -> None:
        with self.stream.commit_group(count=count) as group:
            for idx, value in values.items():
                sample = self.stream[idx] if idx < len(self.stream) else Sample()
                group.set_output(idx, sample.set_item("label", item_of("label", value, False)))
                self.model.setdefault(idx, {})["label"] = value

    @rule(values=st.dictionaries(IDS, VALUES, min_size=1))
    def run_and_undo(self, values: dict[int, int]) -> None:
        self.runs += 1
        stream = self.opened(f"run {self.runs}")
        with stream.commit_group() as group:
            for idx, value in values.items():
                sample = stream[idx] if idx < len(stream) else Sample()
                group.set_output(idx, sample.set_item("meta", item_of("meta", value, False)))
        with process(self.objects, md5=self.md5):
            undone = undo_run(ROOT, f"run {self.runs}")
        assert undone.samples <= len(values)

    @rule(values=st.dictionaries(IDS, VALUES, min_size=1))
    def run(self, values: dict[int, int]) -> None:
        self.runs += 1
        self.before[f"run {self.runs}"] = {i: dict(self.model.get(i, {})) for i in values}
        stream = self.opened(f"run {self.runs}")
        with stream.commit_group() as group:
            for idx, value in values.items():
                sample = stream[idx] if idx < len(stream) else Sample()
                group.set_output(idx, sample.set_item("meta", item_of("meta", value, False)))
                self.model.setdefault(idx, {})["meta"] = value

    @precondition(lambda self: self.before)
    @rule(data=st.data(), is_part=st.booleans())
    def undo(self, data: st.DataObject, is_part: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.before)))
        known = self.before[key]
        some = None
        if is_part and known:
            some = data.draw(st.sets(st.sampled_from(sorted(known)), min_size=1))
        try:
            with process(self.objects, md5=self.md5):
                planned = plan_undo(ROOT, key, indices=some)
                undone = undo_run(ROOT, key, indices=some)
        except UndoRefusedError:
            assert planned.refusal is not None
            return
        assert planned.refusal is None
        assert (planned.files, len(planned.samples)) == (undone.files, undone.samples)
        if some is None:
            del self.before[key]
        for idx in list(known) if some is None else some:
            items = known.pop(idx)
            here = self.model.setdefault(idx, {})
            here.pop("meta", None)
            here.update({k: v for k, v in items.items() if k == "meta"})
            if not here:
                del self.model[idx]

    @rule(idx=IDS, by_other=st.booleans())
    def remove(self, idx: int, by_other: bool) -> None:
        removed = (self.other if by_other else self.stream).remove(idx)
        assert bool(removed) == (self.model.pop(idx, None) is not None)

    @rule(idx=IDS)
    def take(self, idx: int) -> None:
        if idx < len(self.stream):
            sample = self.stream[idx]
            self.taken.append((idx, sample, dict(self.model.get(idx, {}))))

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), value=VALUES)
    def write_a_sample_taken_earlier(self, data: st.DataObject, value: int) -> None:
        idx, sample, _ = data.draw(st.sampled_from(self.taken))
        by_chance, keys = is_as_known(sample), known_of(sample)
        new = sample.set_item("label", item_of("label", value, False))
        had = "label" in self.model.get(idx, {})
        try:
            self.stream.set_output(idx, new, keys=["label"])
        except ConflictError:
            return
        assert by_chance or not (had and "label" in keys)
        self.model.setdefault(idx, {})["label"] = value
        self.taken = [one for one in self.taken if one[1] is not sample]

    @rule(idx=IDS, key=KEYS, value=VALUES, width=st.sampled_from([0, 3, 5]))
    def somebody_adds_a_file(self, idx: int, key: str, value: int, width: int) -> None:
        content, extension = content_of(key, value)
        name = f"{idx:0{width}d}_{key}{extension}"
        if key not in self.model.get(idx, {}) and name not in self.stream_names():
            Store.put(self.around, f"data/{name}", content)
            self.model.setdefault(idx, {})[key] = value

    @precondition(lambda self: self.model)
    @rule(data=st.data(), value=VALUES)
    def somebody_changes_a_file(self, data: st.DataObject, value: int) -> None:
        names = sorted(stat.name for stat in self.around.objects_in("data"))
        name = data.draw(st.sampled_from(names))
        idx, key = int(name.split("_")[0]), name.split("_")[1].partition(".")[0]
        content, extension = content_of(key, value)
        if name.endswith(extension) and not self.was_there(name, content):
            Store.put(self.around, f"data/{name}", content)
            self.model[idx][key] = value
            self.taken = [one for one in self.taken if one[0] != idx]

    def was_there(self, name: str, content: bytes) -> bool:
        """Whether the log had put this very content there before: then it counts as put late."""
        from prefect_pipestream.storage.file_source import new_digest

        log = self.stream._writer.dataset.log  # type: ignore[attr-defined]
        log.refresh()
        return log.state.was_before(name, new_digest(content).hexdigest())

    def stream_names(self) -> dict[str, object]:
        log = self.stream._writer.dataset.log  # type: ignore[attr-defined]
        log.refresh()
        return log.state.refs

    @invariant()
    def a_read_gives_what_was_written_last(self) -> None:
        if not hasattr(self, "stream"):
            return
        for stream in (self.stream, self.other):
            assert stream.indices().tolist() == sorted(self.model)
            for idx in self.model:
                found = {key: value_of(key, item) for key, item in stream[idx].items()}
                assert found == self.model[idx]

    @invariant()
    def others_see_the_same_in_the_files(self) -> None:
        if hasattr(self, "stream"):
            count = sum(1 for _ in self.around.objects_in("data"))
            assert count == sum(map(len, self.model.values()))

    @invariant()
    def a_sample_taken_earlier_is_as_it_was(self) -> None:
        for _, sample, was in self.taken:
            assert {key: value_of(key, item) for key, item in sample.items()} == was


class Md5Machine(BucketMachine):
    md5 = True


@pytest.fixture(autouse=True)
def _listed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_LIST_AFTER_S", 0.0)
    monkeypatch.setattr(dataset, "_LIST_SHARE", 0)


@pytest.mark.timeout(300)
class TestBucket(BucketMachine.TestCase):
    """Some, in a store that calls each write otherwise."""

    settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestBucketLong(BucketMachine.TestCase):
    """The same for longer."""

    settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestMd5Long(Md5Machine.TestCase):
    """The same in a store that calls a content by its MD5, as S3 does."""

    settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
