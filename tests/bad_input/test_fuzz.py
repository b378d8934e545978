"""Any names, any contents, any keys and indices: nothing outside changes, nothing inside is lost.

Each test has a longer variant, marked slow.
"""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.items import BinaryItem, Item, JsonMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence, build_pipe
from prefect_pipestream.sequences.registry import BUILTIN
from prefect_pipestream.sequences.stage import registered_stages
from prefect_pipestream.stages import SampleStage, resolve_stage
from prefect_pipestream.underfolder import check
from prefect_pipestream.underfolder.runs.listing import list_runs
from prefect_pipestream.underfolder.runs.undo import undo_run

from .defects import encoded
from .folders import changed, entry_of, make_dataset, snapshot
from .test_keys_and_indices import BAD_KEYS, ODD_KEYS


def longer_too(quick: int, longer: int) -> pytest.MarkDecorator:
    """Runs a test with some examples, and with more where slow tests are run."""
    slow = pytest.param(longer, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])
    return pytest.mark.parametrize("examples", [quick, slow])


def fuzz(examples: int, attack: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
    """Calls `attack` with examples of the strategies."""
    options = settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options(given(**strategies)(attack))()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that one run wrote."""
    folder = make_dataset(tmp_path_factory.mktemp("template") / "dataset")
    stream = DataStream.read_write_underfolder(folder, run_key="run")
    stream.set_output(0, stream[0].set_value("meta", {"number": 0, "written": True}))
    return folder


@contextmanager
def among_other_files(template: Path) -> Iterator[Path]:
    """Gives a copy of the dataset in a folder of other files, which may not change."""
    with tempfile.TemporaryDirectory() as folder:
        around = Path(folder)
        dataset = around / "dataset"
        shutil.copytree(template, dataset)
        (around / "data").mkdir()
        (around / "data" / "000_image.png").write_bytes(b"not yours")
        (around / "precious.txt").write_bytes(b"not yours")
        before = outside(around)
        yield dataset
        assert changed(before, outside(around)) == set()


def outside(around: Path) -> dict[str, Any]:
    found = snapshot(around, private=True)
    return {name: entry for name, entry in found.items() if name.split("/")[0] != "dataset"}


# -- what is in the folder -----------------------------------------------------------------

PIECES = {
    "index": [
        *("0", "1", "2", "3", "00", "007", "000", "012", "-1", "+1", " 1", "٣", "", "1e3", "x"),
        *("99999999999999", "100000000000000", "0" * 200 + "1"),
    ],
    "between": ["_", "_", "_", "__", "-", "", "_."],
    "key": ["image", "meta", "a", "b_c", "", "é", " ", "..", "\\", "data", "~", "k" * 180, "\n"],
    "ext": [
        ".png",
        ".yaml",
        ".json",
        ".txt",
        ".bin",
        ".npy",
        ".pkl",
        ".PNG",
        ".tar.gz",
        ".",
        "",
        ".?",
    ],
}
NAMES = st.one_of(
    st.builds(lambda *parts: "".join(parts), *(st.sampled_from(p) for p in PIECES.values())),
    st.binary(min_size=1, max_size=30).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"_"))),
    st.text(min_size=1, max_size=20),
)
CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([encoded("PNG"), encoded("JPEG"), b"a: 1\n", b"{}", b"1 2\n", b"[" * 3000]),
)
KINDS = ["file"] * 6 + ["folder", "fifo", "broken", "loop", "outside", "device"]
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["data", "data", "data", "."]), NAMES, st.sampled_from(KINDS), CONTENTS
    ),
    max_size=12,
)


def put(folder: Path, name: str, kind: str, content: bytes) -> None:
    """Makes one entry of a folder, if there can be such a name."""
    path = os.path.join(folder, name.replace("/", "_"))
    targets = {
        "broken": "nowhere",
        "loop": os.path.basename(path),
        "outside": "../../precious.txt",
        "device": "/dev/zero",
    }
    with suppress(OSError, ValueError):  # it is there, is too long, or has a NUL
        if kind == "file":
            if not os.path.lexists(path) or entry_of(path).kind == "file":
                Path(path).write_bytes(content)
        elif kind == "folder":
            os.mkdir(path)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            os.symlink(targets[kind], path)


@longer_too(60, 250)
def test_any_names_and_contents_in_a_dataset(examples: int, template: Path) -> None:
    def attack(entries: list[tuple[str, str, str, bytes]]) -> None:
        with among_other_files(template) as dataset:
            for place, name, kind, content in entries:
                put(dataset / place, name, kind, content)
            before = snapshot(dataset)
            read_everything(dataset)
            write_back_unchanged(dataset)
            assert changed(before, snapshot(dataset)) == set()
            written = write_new_items(dataset)
            assert changed(before, snapshot(dataset)) == written

    fuzz(examples, attack, entries=ENTRIES)


def read_everything(dataset: Path) -> None:
    for opened in (
        SamplesSequence.from_underfolder(dataset),
        DataStream.read_write_underfolder(dataset),
    ):
        for idx in indices_of(dataset):
            with suppress(PipestreamError):
                for item in opened[idx].values():
                    with suppress(PipestreamError):
                        item()
        with pytest.raises(IndexError):
            opened[len(opened)]
    check(dataset)


def indices_of(dataset: Path) -> list[int]:
    stream = DataStream.read_write_underfolder(dataset)
    indices: list[int] = stream.indices().tolist()
    assert len(stream) == indices[-1] + 1
    return indices


def write_back_unchanged(dataset: Path) -> None:
    stream = DataStream.read_write_underfolder(dataset)
    for idx in indices_of(dataset):
        with suppress(PipestreamError):
            assert stream.set_output(idx, stream[idx]) == []


def write_new_items(dataset: Path) -> set[str]:
    stream = DataStream.read_write_underfolder(dataset)
    before = set(os.listdir(dataset / "data"))
    for idx in [*indices_of(dataset), 4]:
        with suppress(PipestreamError):
            stream.set_output(idx, Sample({"fuzzed": BinaryItem(b"new")}))
            assert stream[idx]["fuzzed"]() == b"new"
    return {f"data/{name}" for name in set(os.listdir(dataset / "data")) - before}


# -- what is given to set_output -----------------------------------------------------------

KEYS = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="./\\ _a\0\n~-", max_size=8),
    st.text(alphabet=st.characters(), max_size=8),
    st.sampled_from(BAD_KEYS + ODD_KEYS + ["image", "meta", "camera"]),
    st.integers(180, 260).map(lambda length: "k" * length),
)
INDICES = st.one_of(
    st.integers(-5, 12),
    st.integers(),
    st.sampled_from(
        [10**14 - 1, 10**14, 2**48, 2**63, -(2**63), True, False, None, 1.0, "1", b"1"]
    ),
)
VALUES = st.one_of(
    st.binary(max_size=20).map(BinaryItem),
    st.none().map(lambda _: BinaryItem()),
    st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=4).map(JsonMetadataItem),
    st.just(Item.get_instance("/nowhere/a.png")),
    st.just(Item.get_instance("/dev/null")),
    st.just(Item.get_instance("/dev")),
)


@longer_too(100, 400)
def test_any_keys_and_indices_given_to_set_output(examples: int, template: Path) -> None:
    def attack(
        key: str, idx: Any, item: Item[Any], shared: bool, zfill: int | None, how: str
    ) -> None:
        item = item.make_new(item, shared=shared)
        with among_other_files(template) as dataset:
            before = snapshot(dataset)
            try:
                _set(dataset, how, idx, Sample({key: item}), zfill)
            except (PipestreamError, IndexError, TypeError):
                assert changed(before, snapshot(dataset)) == set()
                return
            names = changed(before, snapshot(dataset))
            assert len(names - before.keys()) <= 1
            if not shared:
                found = DataStream.read_write_underfolder(dataset)[idx][key]
                assert repr(found()) == repr(item())
            assert {os.path.dirname(name) for name in names} <= {"", "data"}

    fuzz(
        examples,
        attack,
        key=KEYS,
        idx=INDICES,
        item=VALUES,
        shared=st.booleans(),
        zfill=st.sampled_from([None, 0, 3, 6, 100]),
        how=st.sampled_from(["stream", "group", "target", "pipe"]),
    )


def _set(dataset: Path, how: str, idx: Any, sample: Sample, zfill: int | None) -> None:
    output: list[Any] = [{"to_underfolder": {"folder": dataset, "zfill": zfill, "exists_ok": True}}]
    if how == "pipe":
        output.insert(0, {"map": {"stage": "identity"}})
    stream = DataStream(SamplesSequence.from_underfolder(dataset, watch=True), output)
    if how == "group":
        with stream.commit_group(signed=True) as group:
            group.set_output(idx, sample)
    elif how == "target":
        assume(idx is not None)
        with stream.commit_group() as group:
            group.set_output(0, sample, target=idx)
    else:
        stream.set_output(idx, sample)


# -- damaged files, through the stages -----------------------------------------------------

STAGES = [
    ["verify-items"],
    ["measure-images"],
    ["invert"],
    ["autocontrast", {"resize-images": {"size": [4, 4], "images": ["file"]}}],
    [{"reencode": {"item_class": "JpegImageItem", "images": ["file"]}}],
    [{"reencode": {"item_class": "PngImageItem", "images": ["file"]}}],
    [{"set-meta": {"key_path": "file.a.b[1]", "value": 1}}],
    [{"sample-hash": {"keys": ["file"]}}, "item-info"],
    ["drop-blank-images"],
]


@longer_too(80, 400)
def test_any_damage_to_a_file_through_any_stage(examples: int, template: Path) -> None:
    originals = {
        ".png": encoded("PNG", 6),
        ".jpg": encoded("JPEG", 6),
        ".tif": encoded("TIFF", 6),
        ".bmp": encoded("BMP", 6),
        ".yaml": b"a:\n  b: [1, 2]\n  c: text\nd: 2020-01-01\n",
        ".json": b'{"a": {"b": [1, 2.5, null]}, "c": "text"}',
        ".toml": b'a = {b = [1, 2]}\nc = "text"\n',
        ".txt": b"1 2 3\n4 5 6\n",
    }

    def attack(
        ext: str, edits: list[tuple[float, int, bytes]], stage: list[Any], keep: bool
    ) -> None:
        content = originals[ext]
        for position, removed, inserted in edits:
            at = int(position * len(content))
            content = content[:at] + inserted + content[at + removed :]
        with among_other_files(template) as dataset:
            path = dataset / "data" / f"001_file{ext}"
            path.write_bytes(content)
            before = snapshot(dataset)
            stream = DataStream.read_write_underfolder(dataset)
            try:
                sample = resolve_stage(stage)(stream[1].extract_keys("file"))
                if isinstance(sample, Sample):
                    stream.set_output(1, sample)
            except PipestreamError:
                assert changed(before, snapshot(dataset)) == set()
                return
            assert not {name for name in changed(before, snapshot(dataset)) if "001_" not in name}
            undo_run(dataset, stream.run_key) if changed(before, snapshot(dataset)) else None
            assert changed(before, snapshot(dataset)) == set()

    fuzz(
        examples,
        attack,
        ext=st.sampled_from(sorted(originals)),
        edits=st.lists(
            st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 40), st.binary(max_size=8)),
            max_size=4,
        ),
        stage=st.sampled_from(STAGES),
        keep=st.booleans(),
    )


# -- private files from a stranger ---------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["", ".", "..", "/", "../../precious.txt", "/../precious.txt", "0_a.bin", "x"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "../../precious.txt", "idx"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    *("journal", "claim.json", "log/0-a.json", "staged/x.alive", "staged/x", "lock"),
    *("runs/run/run.json", "runs/run/undoing.json", "runs/run/done/main/0-a.json", "ledger.lock"),
    *("runs/run/compact-1/samples.npz", "runs/run/compact-1/files.jsonl.gz", "runs/other/run.json"),
]


def mutated(record: Any, path: list[int] | None, value: Any) -> Any:
    """The record with one value in it, found by the path, replaced; None replaces nothing."""
    if path is None:
        return record
    if not path or not isinstance(record, dict | list) or not record:
        return value
    keys = sorted(record) if isinstance(record, dict) else range(len(record))
    key = keys[path[0] % len(keys)]
    copy = dict(record) if isinstance(record, dict) else list(record)
    copy[key] = mutated(record[key], path[1:], value)
    return copy


@longer_too(60, 400)
def test_anything_in_the_private_files(examples: int, template: Path) -> None:
    done = next((template / ".pipestream" / "runs" / "run" / "done").rglob("*.json"))
    out = "../../../up"
    origins = [
        json.loads(done.read_bytes()),
        {"undo": out, "name": out},
        {
            "run_key": "run",
            "undoes": out,
            "undoes_folder": out,
            "started": "now",
            "fingerprint": out,
        },
        {"run_key": out, "host": "somewhere", "pid": 1, "transform": [], "undone": 1, "attempt": 1},
    ]

    def attack(
        place: str, origin: Any, path: list[int] | None, value: Any, raw: bytes | None
    ) -> None:
        content = json.dumps(mutated(origin, path, value)).encode() if raw is None else raw
        with among_other_files(template) as dataset:
            target = dataset / ".pipestream" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(IsADirectoryError):
                target.write_bytes(content)
            sequence = SamplesSequence.from_underfolder(dataset)
            for act in (
                lambda: DataStream.read_write_underfolder(dataset)[1],
                lambda: list_runs(dataset),
                lambda: check(dataset),
                lambda: write_a_blob(dataset),
                lambda: undo_run(dataset, "run", force=True),
                lambda: DataStream.create_new_underfolder(dataset),
                lambda: check(dataset, fix=True),
                lambda: write_a_blob(dataset),
            ):
                with suppress(PipestreamError):
                    act()
            assert sequence[1]["meta"]() == {"number": 1}

    fuzz(
        examples,
        attack,
        place=st.sampled_from(PLACES),
        origin=st.sampled_from(origins),
        path=st.none() | st.lists(st.integers(0, 12), max_size=4),
        value=JSON,
        raw=st.none() | st.none() | st.binary(max_size=40),
    )


def write_a_blob(dataset: Path) -> None:
    DataStream.read_write_underfolder(dataset).set_output(2, Sample({"x": BinaryItem(b"x")}))


# -- specifications from parameters --------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(sorted(registered_stages())),
    st.sampled_from(list(BUILTIN)),
    st.sampled_from(["stage", "stages", "func", "images", "size", "folder", "length", "samples"]),
    st.sampled_from(
        ["os:system", "builtins:eval", "a.b", ":", "../x", "*", "", "image", "dataset"]
    ),
    st.text(max_size=6).filter(lambda text: ":" not in text),
)
SPECS = st.recursive(
    WORDS | st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.just([4, 4]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=8,
)


@longer_too(250, 8000)
def test_any_specification_is_a_stage_or_a_clear_error(
    examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def attack(spec: Any) -> None:
        with suppress(PipestreamError):
            assert isinstance(resolve_stage(spec), SampleStage)
        assert list(tmp_path.iterdir()) == []

    fuzz(examples, attack, spec=SPECS)


@longer_too(250, 8000)
def test_any_list_of_operations_is_a_sequence_or_a_clear_error(
    examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def attack(spec: Any) -> None:
        for source in (SamplesSequence, SamplesSequence.from_list([Sample()] * 3)):
            with suppress(PipestreamError):
                assert isinstance(build_pipe(spec, source), SamplesSequence)
        # `cache` makes the folder that it is given
        for path in tmp_path.iterdir():
            path.rmdir()

    fuzz(examples, attack, spec=SPECS)
