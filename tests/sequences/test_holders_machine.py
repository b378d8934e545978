"""Any order of what holders of samples of one dataset may do agrees with a plain dictionary."""

import itertools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prefect_pipestream.errors import ConflictError, DecodeError
from prefect_pipestream.items import Item, JsonMetadataItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.underfolder import Batch
from tests.dataset_files import Files, content_of, temporary_place

SAMPLES = 3
KEYS = ["a", "b", "c"]  # the samples begin without the last
IDS = st.integers(0, SAMPLES - 1)
KEY = st.sampled_from(KEYS)
PARTS = st.none() | st.sets(KEY)
STREAM = st.integers(0, 2)

Values = dict[str, int]
"""The values of a sample, by key: no two changes have the same."""


@dataclass
class Holder:
    """Somebody who took a sample.

    Attributes:
        idx: The sample.
        sample: What it is to them, with their changes.
        knows: The values that were there as they took it, or that they set.
        read: The values that they have read, or set, since: others may be made from them.
        own: The values that they gave it.
    """

    idx: int
    sample: Sample
    knows: Values
    read: Values = field(default_factory=dict)
    own: Values = field(default_factory=dict)


@dataclass
class Change:
    """What a holder wants to set: some values, and what they were made from."""

    holder: Holder
    new: Values

    def is_refused(self, there: Values) -> bool:
        """Whether somebody changed what it replaces or was made from."""
        holder = self.holder
        replaced = any(there.get(key) != holder.knows.get(key) for key in self.new)
        made_from = any(there.get(key) != value for key, value in holder.read.items())
        return replaced or made_from or (bool(self.new) and self._is_of_another(there))

    def _is_of_another(self, there: Values) -> bool:
        """Whether all that was there is changed, and nothing else tells if it is that sample."""
        knows, touched = self.holder.knows, {*self.holder.read, *self.new}
        return touched.isdisjoint(knows) and all(there[key] != knows[key] for key in knows)


def refused_by(call: Callable[[], object]) -> set[int]:
    """The samples that a call refuses to commit."""
    try:
        call()
    except ConflictError as error:
        return set(error.indices)
    return set()


@dataclass
class OpenGroup:
    """A group of one of the streams, and what was set in it and is not committed yet."""

    stream: int
    entered: AbstractContextManager[Batch]
    batch: Batch
    changes: dict[int, Change] = field(default_factory=dict)


class Holders(RuleBasedStateMachine):
    kind = "folder"

    def __init__(self) -> None:
        super().__init__()
        self.entered = ExitStack()
        self.place = self.entered.enter_context(temporary_place(self.kind))
        self.model: list[Values] = [{"a": -1, "b": -1} for _ in range(SAMPLES)]
        self.holders: list[Holder] = []
        self.groups: list[OpenGroup] = []
        self.numbers = itertools.count()

    @initialize(zfill=st.sampled_from([None, 5]))
    def make(self, zfill: int | None) -> None:
        files = Files(self.place)
        for idx, values in enumerate(self.model):
            for key, value in values.items():
                content = content_of(YamlMetadataItem({"value": value}))
                files[f"data/{idx:03d}_{key}.yaml"] = content
        first = DataStream.read_write_underfolder(self.place, run_key="one run")
        same_run = DataStream.read_write_underfolder(self.place, run_key="one run", zfill=zfill)
        self.renames = zfill is not None
        self.streams = [first, same_run, DataStream.read_write_underfolder(self.place)]

    # -- holders -------------------------------------------------------------------------

    @rule(idx=IDS, stream=STREAM)
    def take(self, idx: int, stream: int) -> None:
        self.holders.append(Holder(idx, self.streams[stream][idx], dict(self.model[idx])))

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), key=KEY)
    def read(self, data: st.DataObject, key: str) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        if key in holder.own:
            assert holder.sample[key]() == {"value": holder.own[key]}
        elif key in holder.sample and self.kind == "bucket":  # it stays as it was taken
            assert holder.sample[key]() == {"value": holder.knows[key]}
            holder.read[key] = holder.knows[key]
        elif key in holder.sample:
            there = self.model[holder.idx][key]
            try:
                assert holder.sample[key]() == {"value": there}
            except DecodeError:  # it is in a file of another name by now
                assert there != holder.knows[key] or self.renames
            else:
                holder.read[key] = there

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), key=KEY, is_json=st.booleans())
    def change(self, data: st.DataObject, key: str, is_json: bool) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        value = next(self.numbers)
        item: Item[Any] = (JsonMetadataItem if is_json else YamlMetadataItem)({"value": value})
        holder.sample = holder.sample.set_item(key, item)
        holder.own[key] = value

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), stream=STREAM, keys=PARTS)
    def set_output(self, data: st.DataObject, stream: int, keys: set[str] | None) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        group = data.draw(st.sampled_from([None, *self.groups]))
        stream = stream if group is None else group.stream
        there = self.model[holder.idx]
        # A stream that pads writes what it is given, if only to rename it; and what another holder
        # took from a file of the old name, and did not read, cannot be written again: a conflict.
        if stream == 1 or self.renames:
            keys = set(holder.own) if keys is None else keys & set(holder.own)
        new = {key: value for key, value in holder.own.items() if keys is None or key in keys}
        change = Change(
            holder, {key: value for key, value in new.items() if there.get(key) != value}
        )
        refused: set[int] = set()
        if group is None and change.new:
            refused = self.commit([change])
        elif group is not None and holder.idx in group.changes:
            refused = self.commit_all(group)
        write = self.streams[stream].set_output if group is None else group.batch.set_output
        assert refused_by(lambda: write(holder.idx, holder.sample, keys)) == refused
        if group is not None and not refused:
            group.changes[holder.idx] = change

    def commit(self, changes: Iterable[Change]) -> set[int]:
        """What becomes of changes that are committed together: the samples that are refused."""
        refused = set()
        for change in changes:
            holder = change.holder
            if change.is_refused(self.model[holder.idx]):
                refused.add(holder.idx)
                continue
            self.model[holder.idx].update(change.new)
            holder.knows.update(change.new)
            holder.read.update(change.new)
        return refused

    def commit_all(self, group: OpenGroup) -> set[int]:
        changes = list(group.changes.values())
        group.changes.clear()
        return self.commit(changes)

    # -- groups --------------------------------------------------------------------------

    @precondition(lambda self: len(self.groups) < 4)
    @rule(stream=STREAM)
    def enter_group(self, stream: int) -> None:
        group = self.streams[stream].commit_group(count=1000, seconds=1000)
        self.groups.append(OpenGroup(stream, group, group.__enter__()))

    @precondition(lambda self: self.groups)
    @rule(is_error=st.booleans())
    def leave_group(self, is_error: bool) -> None:
        group = self.groups.pop()
        refused = self.commit_all(group)
        error = KeyError("inside") if is_error else None
        leave = partial(group.entered.__exit__, type(error) if error else None, error, None)
        with suppress(KeyError):
            assert refused_by(leave) == refused

    # -- what holds ----------------------------------------------------------------------

    @invariant()
    def every_stream_shows_what_was_set_and_not_refused(self) -> None:
        for stream in getattr(self, "streams", ()):
            for idx, values in enumerate(self.model):
                found = {key: item()["value"] for key, item in stream[idx].items()}
                assert found == values

    @invariant()
    def no_item_has_two_files(self) -> None:
        if hasattr(self, "streams"):
            assert len(Files(self.place)) == sum(map(len, self.model))

    def teardown(self) -> None:
        while self.groups:
            self.leave_group(is_error=False)
        self.every_stream_shows_what_was_set_and_not_refused()
        self.entered.close()


class HoldersInBucket(Holders):
    kind = "bucket"


class TestHolders(Holders.TestCase):
    """Some."""

    settings = settings(max_examples=8, stateful_step_count=20, deadline=None)


class TestHoldersInBucket(HoldersInBucket.TestCase):
    """Fewer, in a bucket."""

    settings = settings(max_examples=4, stateful_step_count=20, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestHoldersLong(Holders.TestCase):
    """The same for longer."""

    settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestHoldersInBucketLong(HoldersInBucket.TestCase):
    """The same for longer, in a bucket."""

    settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
