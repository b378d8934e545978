"""Any order of what may happen to a stream's folder agrees with a plain dictionary."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prefect_pipestream.errors import ConflictError
from prefect_pipestream.items import (
    BmpImageItem,
    Item,
    JsonMetadataItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.underfolder import compact
from prefect_pipestream.underfolder.format.names import key_of

IDS = st.integers(0, 7)
KEYS = st.sampled_from(["image", "label", "meta"])
VALUES = st.integers(0, 255)


def item_of(key: str, value: int, other_class: bool) -> Item:
    if key == "image":
        image = np.full((2, 3), value, dtype=np.uint8)
        return (BmpImageItem if other_class else PngImageItem)(image)
    if key == "label":
        return TxtNumpyItem(np.array([value]))
    return (JsonMetadataItem if other_class else YamlMetadataItem)({"value": value})


def value_of(key: str, item: Item) -> int:
    value = item()
    return int(value["value"] if key == "meta" else np.ravel(value)[0])


def known_of(sample: Sample) -> set[str]:
    """The keys of the files that its holder knows it to have."""
    return set() if sample.origin is None else {key_of(name) for name in sample.origin.sources}


def is_as_known(sample: Sample) -> bool:
    """Whether its files have the very content that its holder knows: by chance, another's may."""
    sources = () if sample.origin is None else sample.origin.sources.values()
    return not any(source.is_changed() for source in sources)


class StreamMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "dataset"
        self.model: dict[int, dict[str, int]] = {}
        self.taken: list[tuple[int, Sample]] = []
        self.elsewhere: set[int] = set()  # which of them moved, by their place in the list

    @initialize(zfill=st.sampled_from([None, 0, 4]), first=st.dictionaries(IDS, VALUES))
    def make(self, zfill: int | None, first: dict[int, int]) -> None:
        (self.folder / "data").mkdir(parents=True)
        for idx, value in first.items():
            item_of("image", value, False).serialize(self.folder / f"data/{idx:03d}_image.png")
            self.model[idx] = {"image": value}
        self.zfill = zfill
        self.open()

    @rule()
    def open(self) -> None:
        self.stream = DataStream.read_write_underfolder(self.folder, zfill=self.zfill)
        self.other = DataStream.read_write_underfolder(self.folder, zfill=self.zfill)
        self.taken, self.elsewhere = [], set()

    def read(self, idx: int) -> Sample:
        return self.stream[idx] if idx < len(self.stream) else Sample()

    @rule(idx=IDS, key=KEYS, value=VALUES, other_class=st.booleans(), by_other=st.booleans())
    def set_item(self, idx: int, key: str, value: int, other_class: bool, by_other: bool) -> None:
        stream = self.other if by_other else self.stream
        sample = stream[idx] if idx < len(stream) else Sample()
        stream.set_output(idx, sample.set_item(key, item_of(key, value, other_class)))
        self.model.setdefault(idx, {})[key] = value

    @rule(idx=IDS, key=KEYS, value=VALUES)
    def set_only_a_key(self, idx: int, key: str, value: int) -> None:
        sample = Sample({k: item_of(k, value, False) for k in ("image", "label", "meta")})
        self.stream.set_output(idx, sample, keys=[key])
        self.model.setdefault(idx, {})[key] = value

    @rule(values=st.dictionaries(IDS, VALUES, min_size=1), count=st.integers(1, 4))
    def set_in_groups(self, values: dict[int, int], count: int) -> None:
        with self.stream.commit_group(count=count) as group:
            for idx, value in values.items():
                group.set_output(
                    idx, self.read(idx).set_item("label", item_of("label", value, False))
                )
                self.model.setdefault(idx, {})["label"] = value

    @rule(idx=IDS, by_other=st.booleans())
    def remove(self, idx: int, by_other: bool) -> None:
        removed = (self.other if by_other else self.stream).remove(idx)
        assert bool(removed) == (self.model.pop(idx, None) is not None)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def remove_a_sample_taken_earlier(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.taken) - 1))
        idx, sample = self.taken[number]
        keys, by_chance = known_of(sample), is_as_known(sample)
        try:
            self.stream.remove(idx, sample)
        except ConflictError:
            return
        gone = set(self.model.pop(idx, {}))
        assert keys >= gone  # it knew of all that went
        assert number not in self.elsewhere or not gone or by_chance

    @rule()
    def close_gaps(self) -> None:
        ranks = {idx: rank for rank, idx in enumerate(sorted(self.model))}
        assert compact(self.folder).samples == len(ranks)
        self.elsewhere |= {
            number
            for number, (idx, sample) in enumerate(self.taken)
            if known_of(sample) and ranks.get(idx) != idx
        }
        self.model = {rank: self.model[idx] for idx, rank in ranks.items()}

    @rule(idx=IDS)
    def take(self, idx: int) -> None:
        if idx < len(self.stream):
            self.taken.append((idx, self.stream[idx]))

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), value=VALUES)
    def write_a_sample_taken_earlier(self, data: st.DataObject, value: int) -> None:
        number = data.draw(st.integers(0, len(self.taken) - 1))
        idx, sample = self.taken[number]
        new = sample.set_item("label", item_of("label", value, False))
        by_chance = is_as_known(sample)
        try:
            self.stream.set_output(idx, new, keys=["label"])
        except ConflictError:
            return  # somebody else wrote it meanwhile: nothing may have happened
        assert number not in self.elsewhere or by_chance
        self.model.setdefault(idx, {})["label"] = value

    @rule(idx=IDS, key=KEYS, value=VALUES, width=st.sampled_from([0, 3, 5]))
    def somebody_adds_a_file(self, idx: int, key: str, value: int, width: int) -> None:
        if key not in self.model.get(idx, {}):
            item = item_of(key, value, False)
            name = f"{idx:0{width}d}_{key}{item.file_extensions()[0]}"
            item.serialize(self.folder / "data" / name)
            self.model.setdefault(idx, {})[key] = value

    @precondition(lambda self: self.model)
    @rule(data=st.data(), value=VALUES, in_place=st.booleans())
    def somebody_changes_a_file(self, data: st.DataObject, value: int, in_place: bool) -> None:
        path, idx, key = data.draw(st.sampled_from(self.files()))
        item = Item.get_instance(path).make_new(item_of(key, value, False)())
        item.serialize(self.root / path.name)
        content = (self.root / path.name).read_bytes()
        if in_place:
            path.write_bytes(content)
        else:
            os.replace(self.root / path.name, path)
        self.model[idx][key] = value

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def somebody_deletes_a_file(self, data: st.DataObject) -> None:
        path, idx, key = data.draw(st.sampled_from(self.files()))
        path.unlink()
        del self.model[idx][key]
        if not self.model[idx]:
            del self.model[idx]

    def files(self) -> list[tuple[Path, int, str]]:
        found = sorted((self.folder / "data").iterdir())
        return [(p, int(p.stem.split("_")[0]), p.stem.split("_")[1]) for p in found]

    @invariant()
    def a_read_gives_what_was_written_last(self) -> None:
        if not hasattr(self, "stream"):
            return
        assert len(self.stream) == max(self.model, default=-1) + 1
        assert self.stream.indices().tolist() == sorted(self.model)
        for idx in range(len(self.stream)):
            sample = self.stream[idx]
            found = {key: value_of(key, item) for key, item in sample.items()}
            assert found == self.model.get(idx, {})
        assert len(self.files()) == sum(map(len, self.model.values()))

    @invariant()
    def a_sample_taken_earlier_shows_what_is_there_now(self) -> None:
        for idx, sample in self.taken:
            for key, item in sample.items():
                if key in self.model.get(idx, {}) and item.local_sources[0].exists():
                    assert value_of(key, item) == self.model[idx][key]

    def teardown(self) -> None:
        shutil.rmtree(self.root)


@pytest.mark.timeout(300)
class TestStream(StreamMachine.TestCase):
    """Some."""

    settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestStreamLong(StreamMachine.TestCase):
    """The same for longer."""

    settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
