"""Tar shards that the library `webdataset` makes and reads again, and what is wrong in them."""

import gzip
import io
import pickle
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream import SamplesSequence
from prefect_pipestream.errors import DatasetError, DatasetNotFoundError, DecodeError
from prefect_pipestream.exporting import ExportError, export
from prefect_pipestream.items import ImageItem, Item, JsonMetadataItem, UnknownItem
from prefect_pipestream.sequences import Sample
from prefect_pipestream.sequences.building import PipeBuildingError


def picture(number: int, form: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def shards_by_webdataset(folder: Path, samples: int = 6, per_shard: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    pattern = str(folder / "train-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=per_shard, verbose=0) as sink:
        for number in range(samples):
            sink.write(
                {
                    "__key__": f"part/{number:04d}",
                    "jpg": picture(number),
                    "seg.png": picture(number, "PNG"),
                    "json": {"boxes": [[1, 2.5, 3, 4]], "number": number},
                    "cls": number % 3,
                    "txt": f"a picture, the {number}th\n",
                    "features.npy": np.arange(number + 1, dtype=np.float32),
                    "pyd": {"code": number},
                }
            )
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def loaded(folder: Path) -> list[dict]:
    """The samples as the library has them, but for the shard that they are in."""
    urls = sorted(map(str, folder.glob("**/*.tar")))
    dataset = webdataset.WebDataset(urls, shardshuffle=False)
    return [
        {name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")}
        for sample in dataset
    ]


def is_bytes(key: str, item: Item) -> bool:
    return key != "metadata" and not item.is_shared


def values(samples: SamplesSequence) -> list[dict]:
    """All that samples hold: bytes of files as they are."""
    return [
        {
            key: item.file_sources[0].read() if is_bytes(key, item) else item()
            for key, item in sample.items()
        }
        for sample in samples
    ]


def into_dataset(samples: SamplesSequence, folder: Path) -> SamplesSequence:
    samples.to_underfolder(folder).run()
    return SamplesSequence.from_underfolder(folder)


def test_shards_of_the_library_are_samples(tmp_path):
    samples = SamplesSequence.from_webdataset(shards_by_webdataset(tmp_path / "shards"))
    assert len(samples) == 6
    sample = samples[5]
    assert set(sample) == {"image", "seg", "json", "features", "pyd", "metadata"}
    assert sample["image"].file_sources[0].read() == picture(5)
    assert sample["json"]() == {"boxes": [[1, 2.5, 3, 4]], "number": 5}
    assert sample["features"]().tolist() == [0, 1, 2, 3, 4, 5]
    assert isinstance(sample["pyd"], UnknownItem)
    assert sample["metadata"]() == {
        "name": "0005",
        "file": "train-000001/part/0005",
        "origin": str(tmp_path / "shards"),
        "shard": "train-000001",
        "split": "train",
        "label_id": 2,
        "texts": {"txt": "a picture, the 5th\n"},
    }


def test_a_dataset_has_the_bytes_of_the_shards(tmp_path):
    samples = SamplesSequence.from_webdataset(shards_by_webdataset(tmp_path / "shards"))
    dataset = into_dataset(samples, tmp_path / "dataset")
    assert values(dataset) == values(samples)
    assert (tmp_path / "dataset/data/3_image.jpg").read_bytes() == picture(3)


def test_exported_shards_are_the_same_to_the_library_and_to_an_import(tmp_path):
    shards = shards_by_webdataset(tmp_path / "shards")
    samples = SamplesSequence.from_webdataset(shards, origin="it")
    dataset = into_dataset(samples, tmp_path / "dataset")
    report = export(dataset, "webdataset", tmp_path / "again")
    assert report.samples == 6
    assert loaded(tmp_path / "again") == loaded(shards)
    assert values(SamplesSequence.from_webdataset(tmp_path / "again", origin="it")) == values(
        samples
    )
    export(dataset, "webdataset", tmp_path / "twice")
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()


def test_shards_get_a_given_size(tmp_path):
    samples = SamplesSequence.from_webdataset(shards_by_webdataset(tmp_path / "shards"))
    export(samples, "webdataset", tmp_path / "again", samples_per_shard=2)
    names = [path.name for path in sorted((tmp_path / "again").iterdir())]
    assert names == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert [one["jpg"] for one in loaded(tmp_path / "again")] == [picture(n) for n in range(6)]
    for path in (tmp_path / "again").iterdir():
        with tarfile.open(path) as tar:
            infos = tar.getmembers()
        assert {(info.mtime, info.uid, info.gid, info.uname) for info in infos} == {(0, 0, 0, "")}


def test_a_new_label_gets_a_number_and_classes_are_kept(tmp_path):
    shards = shards_by_webdataset(tmp_path / "shards")
    samples = SamplesSequence.from_webdataset(shards, classes=["cat", "dog", "cow"])
    assert samples[1]["metadata"]()["label"] == "dog"
    relabelled = [samples[0].deep_set("metadata.label", "owl"), samples[1], samples[2]]
    export(SamplesSequence.from_list(relabelled), "webdataset", tmp_path / "again")
    assert [one["cls"] for one in loaded(tmp_path / "again")] == [b"3", b"1", b"2"]
    again = SamplesSequence.from_webdataset(tmp_path / "again")
    assert [one["metadata"]()["label"] for one in again] == ["owl", "dog", "cow"]
    assert [one["name"] for one in again[0]["categories"]()] == ["cat", "dog", "cow", "owl"]


def test_what_the_layout_has_no_place_for_is_kept(tmp_path):
    samples = SamplesSequence.from_webdataset(shards_by_webdataset(tmp_path / "shards"), origin="o")
    changed = [one.deep_set("metadata.sharpness", 0.1) for one in samples]
    export(SamplesSequence.from_list(changed), "webdataset", tmp_path / "again")
    again = SamplesSequence.from_webdataset(tmp_path / "again", origin="o")
    assert values(again) == values(SamplesSequence.from_list(changed))


def test_a_folder_of_classes_becomes_shards(tmp_path):
    for name in ("cat/1.x.jpg", "cat/2.jpg", "dog/1.jpg"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(len(name)))
    folder = SamplesSequence.from_image_folder(tmp_path / "folder")
    export(folder, "webdataset", tmp_path / "shards")
    samples = SamplesSequence.from_webdataset(tmp_path / "shards")
    found = [(one["metadata"]()["file"], one["metadata"]()["label"]) for one in samples]
    assert found == [
        ("data-000000/cat/1_x", "cat"),
        ("data-000000/cat/2", "cat"),
        ("data-000000/dog/1", "dog"),
    ]


def test_objects_in_a_sample_come_back_bit_by_bit(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x.jpg": picture(0)})
    objects = [{"label": "cat", "category_id": 1, "bbox": [0.1, 1 / 3, 1e-7, 2.0], "more": None}]
    shared = JsonMetadataItem([{"id": 1, "name": "cat", "supercategory": "pet"}], shared=True)
    (sample,) = SamplesSequence.from_webdataset(path, origin="o")
    items = {**sample, "annotations": JsonMetadataItem(objects), "categories": shared}
    export(SamplesSequence.from_list([Sample(items)]), "webdataset", tmp_path / "again")
    (again,) = SamplesSequence.from_webdataset(tmp_path / "again", origin="o")
    assert {key: item() for key, item in again.items() if key != "image"} == {
        key: item() for key, item in items.items() if key != "image"
    }


def test_extensions_become_keys_and_the_other_way(tmp_path):
    names = ["JPG", "png", "left.depth.png", "left_depth.png", "json.gz", "cls", "b.cls", "a.txt"]
    contents = {f"x.{name}": picture(1, "PNG") for name in names}
    contents |= {"x.cls": b"1\n", "x.b.cls": b"cat", "x.a.txt": b"\xff\x00", "README": b"no"}
    write_tar(tmp_path / "a.tar", contents)
    samples = SamplesSequence.from_webdataset(tmp_path / "a.tar", origin="o")
    keys = {"image", "png", "left_depth", "left_depth_", "json", "metadata", "a"}
    assert set(samples[0]) == keys
    facts = samples[0]["metadata"]()
    assert facts["label_id"] == 1
    assert facts["texts"] == {"cls": "1\n", "b.cls": "cat"}
    dataset = into_dataset(samples, tmp_path / "dataset")
    export(dataset, "webdataset", tmp_path / "again")
    with tarfile.open(tmp_path / "again/a.tar") as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar}
    del contents["README"]
    assert found == contents
    again = SamplesSequence.from_webdataset(tmp_path / "again", origin="o")
    assert values(again) == values(samples)


def test_keys_can_be_given(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x.left.jpg": picture(0), "x.txt": b"a cat"})
    keys = {"left.jpg": "image", "txt": "caption"}
    samples = SamplesSequence.from_webdataset(path, keys=keys)
    assert set(samples[0]) == {"image", "caption", "metadata"}
    export(samples, "webdataset", tmp_path / "again")
    with tarfile.open(tmp_path / "again/a.tar") as tar:
        assert tar.getnames() == ["x.left.jpg", "x.txt"]
    with pytest.raises(PipeBuildingError, match="dots"):
        SamplesSequence.from_webdataset(path, keys={"left.jpg": "a.b"})


def test_a_pattern_names_shards(tmp_path):
    shards = shards_by_webdataset(tmp_path / "shards", samples=7, per_shard=2)
    samples = SamplesSequence.from_webdataset(shards / "train-{000001..000002}.tar")
    assert [one["metadata"]()["name"] for one in samples] == ["0002", "0003", "0004", "0005"]
    with pytest.raises(DatasetNotFoundError, match=r"000004\.tar"):
        SamplesSequence.from_webdataset(shards / "train-{000003..000004}.tar")
    with pytest.raises(DatasetError, match="stands for"):
        SamplesSequence.from_webdataset(shards / "train-{0..999999999999}.tar")


def test_samples_are_pickled_and_read_in_threads(tmp_path):
    samples = SamplesSequence.from_webdataset(shards_by_webdataset(tmp_path / "shards"))
    assert values(pickle.loads(pickle.dumps(samples))) == values(samples)
    image = pickle.loads(pickle.dumps(samples[2]["image"]))
    assert isinstance(image, ImageItem)
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda n: image.file_sources[0].read(), range(100)))
    assert set(contents) == {picture(2)}


def test_a_sample_is_the_same_whatever_else_is_in_its_shard(tmp_path):
    one = write_tar(tmp_path / "a.tar", {"x.jpg": picture(0), "y.jpg": picture(1)})
    other = tmp_path / "b" / "a.tar"
    other.parent.mkdir()
    write_tar(other, {"w.jpg": picture(3), "x.jpg": picture(0), "y.jpg": picture(2)})
    before, after = (SamplesSequence.from_webdataset(path) for path in (one, other))
    versions = [
        sample.origin.source_of("image").version for sample in (before[0], after[1], after[2])
    ]
    assert versions[0] == versions[1] != versions[2]


# -- what is wrong --------------------------------------------------------------------------


def test_a_shard_that_is_cut_off_is_told(tmp_path):
    shards = shards_by_webdataset(tmp_path / "shards", samples=6, per_shard=6)
    (path,) = shards.iterdir()
    with tarfile.open(path) as tar:
        cut = next(info for info in tar if info.name == "part/0002.seg.png").offset_data + 10
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DatasetError, match=r"train-000000\.tar: ends at byte .*before it: 2\."):
        len(SamplesSequence.from_webdataset(shards))
    samples = SamplesSequence.from_webdataset(shards, allow_damaged=True)
    with pytest.warns(UserWarning, match="2 samples are taken"):
        len(samples)
    assert [one["image"].file_sources[0].read() for one in samples] == [
        picture(0),
        picture(1),
    ]


@pytest.mark.parametrize("cut", ["at a header", "in a header", "in the end"])
def test_a_shard_that_is_cut_off_between_files_is_told(tmp_path, cut):
    path = write_tar(tmp_path / "a.tar", {f"{n}.jpg": picture(n) for n in range(3)})
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    at = {"at a header": last.offset, "in a header": last.offset + 100}.get(
        cut, last.offset_data + -(-last.size // 512) * 512
    )
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(DatasetError, match=f"at byte {at:,}|at byte {last.offset:,}|from byte"):
        len(SamplesSequence.from_webdataset(path))


def test_a_shard_with_rubbish_in_its_middle_is_told(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{n}.jpg": picture(n) for n in range(3)})
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[1].offset
    content[offset : offset + 512] = b"\x07" * 512
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"no header at byte {offset:,}"):
        len(SamplesSequence.from_webdataset(path))


def test_compressed_shards_are_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(write_tar(tmp_path / "b", {"x.jpg": b""}).read_bytes()))
    for where in (path, tmp_path):
        with pytest.raises(DatasetError, match="compressed"):
            SamplesSequence.from_webdataset(where)
    path.rename(tmp_path / "a.tar")
    with pytest.raises(DatasetError, match=r"gzip.*Unpack it"):
        len(SamplesSequence.from_webdataset(tmp_path / "a.tar"))


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_told(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.tar: is no tar file"):
        len(SamplesSequence.from_webdataset(tmp_path))


def test_nothing_there_is_told(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no shard"):
        SamplesSequence.from_webdataset(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="no shard"):
        SamplesSequence.from_webdataset(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../../etc/passwd.jpg", tarfile.REGTYPE, "leads out"),
        ("/etc/passwd.jpg", tarfile.REGTYPE, "leads out"),
        ("b.jpg", tarfile.SYMTYPE, "a link"),
        ("b.jpg", tarfile.LNKTYPE, "a link"),
        ("b.jpg", tarfile.CHRTYPE, "no regular file"),
        ("b.jpg", tarfile.FIFOTYPE, "no regular file"),
        ("b\n.jpg", tarfile.REGTYPE, "cannot be shown"),
    ],
)
def test_a_hostile_member_fails_its_sample_alone(tmp_path, name, kind, words):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(picture(0))
        tar.addfile(info, io.BytesIO(picture(0)))
        bad = tarfile.TarInfo(name)
        bad.type, bad.linkname = kind, "/etc/passwd"
        tar.addfile(bad)
    samples = SamplesSequence.from_webdataset(tmp_path / "a.tar")
    assert samples[0]["image"].file_sources[0].read() == picture(0)
    with pytest.raises(DecodeError, match=rf"a\.tar: sample .*{words}"):
        samples[1]


def test_two_files_of_one_name_fail_their_sample(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg", "a.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    samples = SamplesSequence.from_webdataset(tmp_path / "a.tar")
    assert len(samples) == 2
    with pytest.raises(DecodeError, match=r"has two files \.jpg"):
        samples[0]
    assert "image" in samples[1]


def test_a_shard_that_changes_under_its_reader_is_told(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x.jpg": picture(0)})
    sample = SamplesSequence.from_webdataset(path)[0]
    write_tar(path, {"w.txt": b"hello", "x.jpg": picture(1)})
    with pytest.raises(DecodeError, match="changed since"):
        sample["image"]()
    path.unlink()
    with pytest.raises(DecodeError, match="no such file"):
        sample["image"]()


def test_a_broken_image_fails_when_it_is_decoded_and_is_copied_as_it_is(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x.jpg": b"no picture", "x.json": b"{"})
    sample = SamplesSequence.from_webdataset(path)[0]
    for key, file in (("image", "x.jpg"), ("json", "x.json")):
        with pytest.raises(DecodeError, match=rf"a\.tar/{file}"):
            sample[key]()
    dataset = into_dataset(SamplesSequence.from_list([sample]), tmp_path / "dataset")
    assert dataset[0]["image"].file_sources[0].read() == b"no picture"


def test_a_sample_that_cannot_be_a_shard_is_left_out_and_told(tmp_path):
    samples = SamplesSequence.from_webdataset(
        write_tar(tmp_path / "a.tar", {"x.jpg": picture(0), "y.jpg": picture(1)})
    )
    bad = samples[0].deep_set("metadata.label", 7)
    both = SamplesSequence.from_list([bad, samples[1]])
    with pytest.raises(ExportError, match="label"):
        export(both, "webdataset", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    report = export(both, "webdataset", tmp_path / "again", max_failed=0.5)
    assert list(report.failures) == [0]
    assert [one["__key__"] for one in loaded(tmp_path / "again")] == ["y"]


names = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="./\\"), min_size=1)
extensions = st.lists(
    names | st.sampled_from(["jpg", "png", "json", "cls", "txt", "npy"]), min_size=1, max_size=3
).map(".".join)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        names,
        st.dictionaries(extensions, st.binary(max_size=40), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_files_a_sample_has_come_back(samples):
    members = {
        f"{key}.{extension}": content
        for key, files in samples.items()
        for extension, content in files.items()
        if not key.startswith("__")
    }
    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder, "a.tar"), members)
        found = SamplesSequence.from_webdataset(path, origin="o")
        if not members:
            return
        dataset = into_dataset(found, Path(folder, "dataset"))
        export(dataset, "webdataset", Path(folder, "again"))
        again = SamplesSequence.from_webdataset(Path(folder, "again"), origin="o")
        assert values(again) == values(found)
        with tarfile.open(Path(folder, "again/a.tar")) as tar:
            written = {info.name: tar.extractfile(info).read() for info in tar}
        kept = {name for name in members if not name.endswith(".metadata.json")}
        assert {name: written[name] for name in kept} == {name: members[name] for name in kept}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_damaged_is_told_or_read(data):
    with tempfile.TemporaryDirectory() as folder:
        path = write_tar(Path(folder, "a.tar"), {f"{n}.jpg": b"x" * 40 for n in range(3)})
        content = bytearray(path.read_bytes()[:4096])
        header = data.draw(st.sampled_from([0, 1024, 2048]))
        for at in data.draw(st.lists(st.integers(0, 511), min_size=1, max_size=5)):
            content[header + at] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # else the checksum tells
            head = content[header : header + 512]
            number = sum(head[:148]) + sum(head[156:]) + 8 * 32
            content[header + 148 : header + 156] = b"%06o\0 " % number
        path.write_bytes(content)
        samples = SamplesSequence.from_webdataset(path)
        told = [error_of(lambda: len(samples))]
        for idx in [] if told[0] else range(len(samples)):
            told.append(error_of(lambda at=idx: values(SamplesSequence.from_list([samples[at]]))))
        assert all(str(path) in str(error) for error in told if error)


def error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except (DatasetError, DecodeError) as error:
        return error
    return None


def test_headers_that_follow_headers_without_end_are_told(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
    header = info.tobuf(tarfile.USTAR_FORMAT) + b"name".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(header * 3000)
    with pytest.raises(DatasetError, match=r"a\.tar: is no tar file"):
        len(SamplesSequence.from_webdataset(tmp_path))


# -- as a run -------------------------------------------------------------------------------


def test_an_import_takes_in_what_is_new_and_changed_and_is_exported_again(tmp_path, prefect_api):
    from prefect_pipestream.flows import export_dataset, import_dataset

    shards = tmp_path / "shards"
    shards.mkdir()
    write_tar(shards / "a.tar", {"x.jpg": picture(0), "x.cls": b"1", "y.jpg": picture(1)})
    dataset = tmp_path / "dataset"
    assert import_dataset("webdataset", shards, dataset).counts["written"] == 2
    assert import_dataset("webdataset", shards, dataset).total == 0

    members = {"w.jpg": picture(3), "x.jpg": picture(0), "x.cls": b"1", "y.jpg": picture(2)}
    write_tar(shards / "a.tar", members)
    assert import_dataset("webdataset", shards, dataset, chunk_size=1).counts["written"] == 2
    samples = SamplesSequence.from_underfolder(dataset)
    assert [one["metadata"]()["name"] for one in samples] == ["x", "y", "w"]
    assert samples[1]["image"].file_sources[0].read() == picture(2)

    assert export_dataset(dataset, "webdataset", tmp_path / "again").samples == 3
    with tarfile.open(tmp_path / "again/a.tar") as tar:
        assert {info.name: tar.extractfile(info).read() for info in tar} == members


def test_a_hostile_sample_fails_in_an_import_and_the_others_come_in(tmp_path, prefect_api):
    from prefect_pipestream.flows import import_dataset

    path = write_tar(tmp_path / "a.tar", {"../../x.jpg": b"", "y.jpg": picture(1)})
    report = import_dataset("webdataset", path, tmp_path / "dataset", max_failed=0.5)
    assert report.counts["written"] == 1
    assert report.counts["failed"] == 1
    assert not (tmp_path.parent / "x.jpg").exists()
