import pickle
from fractions import Fraction

import imageio.v3 as iio
import numpy as np
import pytest

from prefect_pipestream.errors import DatasetNotFoundError, DecodeError, PipeBuildingError
from prefect_pipestream.items import (
    JpegImageItem,
    NpyNumpyItem,
    PngImageItem,
    TxtNumpyItem,
    YamlMetadataItem,
)
from prefect_pipestream.sequences import Sample, SamplesSequence

RANDOM = np.random.default_rng(0)


def numbered(length):
    return [Sample({"x": YamlMetadataItem(i)}) for i in range(length)]


def test_from_list_gives_the_very_samples():
    samples = numbered(3)
    sequence = SamplesSequence.from_list(samples)
    assert list(sequence) == samples
    assert len(SamplesSequence.from_list([])) == 0


def test_from_list_refuses_what_is_not_a_sample():
    with pytest.raises(PipeBuildingError, match="element 1 is a int"):
        SamplesSequence.from_list([Sample(), 5])
    with pytest.raises(PipeBuildingError, match="list of samples"):
        SamplesSequence.from_list(5)


@pytest.mark.parametrize("length", [3, lambda: 3])
def test_from_callable_calls_with_the_index(length):
    sequence = SamplesSequence.from_callable(
        generator_fn=lambda i: Sample({"x": YamlMetadataItem(i)}), length=length
    )
    assert [s["x"]() for s in sequence] == [0, 1, 2]
    assert sequence[-1]["x"]() == 2
    with pytest.raises(IndexError):
        sequence[3]


def test_from_callable_refuses_a_negative_length():
    with pytest.raises(PipeBuildingError, match="0 or more"):
        SamplesSequence.from_callable(generator_fn=lambda i: Sample(), length=-1)


@pytest.fixture
def image_folder(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.bmp", "sub/deep/d.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        item = PngImageItem if name == "b.png" else JpegImageItem
        item(np.full((4, 5, 3), 7, np.uint8)).serialize(path.with_suffix(item.file_extensions()[0]))
        if path.suffix not in (".png",):
            path.with_suffix(".jpeg").rename(path)
    (tmp_path / "notes.txt").write_text("1 2 3")
    (tmp_path / "sub" / "clip.mp4").write_bytes(b"")
    return tmp_path


def names(sequence, key="image"):
    return [sample[key].local_sources[0].name for sample in sequence]


def test_from_images_finds_every_image_file(image_folder):
    sequence = SamplesSequence.from_images(image_folder, sort_files=True)
    assert names(sequence) == ["a.JPG", "b.png", "c.bmp", "d.tif"]
    assert isinstance(sequence[0]["image"], JpegImageItem)
    assert sequence[1]["image"]().shape == (4, 5, 3)
    flat = SamplesSequence.from_images(
        image_folder, sort_files=True, recursive=False, image_key="photo"
    )
    assert names(flat, "photo") == ["a.JPG", "b.png"]
    assert sorted(names(SamplesSequence.from_images(image_folder))) == names(sequence)


def test_from_images_of_a_missing_folder(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        SamplesSequence.from_images(tmp_path / "nowhere")
    assert len(SamplesSequence.from_images(tmp_path / "nowhere", must_exist=False)) == 0


@pytest.fixture(params=["mp4", "avi"])
def video(request, tmp_path):
    pytest.importorskip("av")
    path = tmp_path / f"clip.{request.param}"
    frames = np.stack([np.full((48, 64, 3), 10 * i, np.uint8) for i in range(24)])
    iio.imwrite(path, frames, plugin="pyav", codec="mpeg4", fps=25)
    return path


def brightness(sample):
    return round(float(sample["image"]().mean()) / 10)


def test_from_video_gives_each_frame_in_any_order(video):
    sequence = SamplesSequence.from_video(video)
    assert len(sequence) == 24
    assert sequence[0]["image"]().shape == (48, 64, 3)
    assert sequence[0]["image"]().dtype == np.uint8
    assert [brightness(s) for s in sequence] == list(range(24))
    for idx in (20, 3, 3, 4, 23, 0, 11):
        assert brightness(sequence[idx]) == idx
    assert brightness(pickle.loads(pickle.dumps(sequence))[9]) == 9


def film(path, *, steps, start=0, **options):
    """A video of frames that all differ, each so many milliseconds after the one before."""
    av = pytest.importorskip("av")
    times = start + np.cumsum([0, *steps])
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options=options)
        stream.width, stream.height, stream.gop_size = 64, 48, 12
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times.tolist()):
            image = np.full((48, 64, 3), 2 * number, np.uint8)
            image[:8, :8] = RANDOM.integers(0, 256, (8, 8, 3))
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("extension", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize(
    "timing",
    [
        {"steps": [40] * 99},
        {"steps": [40] * 99, "start": 280},
        {"steps": RANDOM.integers(15, 90, 99)},
        {"steps": [40] * 99, "bf": "2"},
    ],
    ids=["constant", "late", "variable", "in another order"],
)
def test_from_video_gives_the_frames_of_imageio(extension, timing, tmp_path):
    path = tmp_path / f"clip.{extension}"
    film(path, **timing)
    with iio.imopen(path, "r", plugin="pyav") as file:
        frames = [frame.copy() for frame in file.iter()]
    sequence = SamplesSequence.from_video(path)
    assert len(sequence) == len(frames) >= 99
    for idx in (*RANDOM.permutation(len(frames))[:20].tolist(), *range(40, 60), 99, 0):
        idx = min(idx, len(frames) - 1)
        assert np.array_equal(sequence[idx]["image"](), frames[idx]), idx


def test_from_video_in_workers(video):
    done = SamplesSequence.from_video(video).apply(num_workers=2, track_fn=False)
    assert [brightness(s) for s in done] == list(range(24))


def test_from_video_of_no_video(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(DecodeError, match=r"text\.mp4"):
        len(SamplesSequence.from_video(tmp_path / "text.mp4"))
    with pytest.raises(DatasetNotFoundError, match=r"none\.mp4"):
        SamplesSequence.from_video(tmp_path / "none.mp4")
    assert len(SamplesSequence.from_video(tmp_path / "none.mp4", must_exist=False)) == 0


def test_toy_dataset_has_what_it_says():
    sequence = SamplesSequence.toy_dataset(4, image_size=(60, 40), seed=1, objects_range=(2, 3))
    assert len(sequence) == 4
    for idx, sample in enumerate(sequence):
        assert list(sample) == [
            "image",
            "mask",
            "instances",
            "bboxes",
            "keypoints",
            "metadata",
            "label",
        ]
        assert sample["image"]().shape == (40, 60, 3)
        assert sample["mask"]().shape == sample["instances"]().shape == (40, 60)
        assert isinstance(sample["bboxes"], NpyNumpyItem)
        assert isinstance(sample["label"], TxtNumpyItem)
        count = len(sample["bboxes"]())
        assert count in (2, 3)
        assert sample["bboxes"]().shape == (count, 5)
        assert set(np.unique(sample["instances"]())) <= set(range(count + 1))
        assert sample["mask"]().max() <= 6
        meta = sample["metadata"]()
        assert meta["id"] == idx
        assert np.array_equal(meta["bboxes"], sample["bboxes"]())
        assert len(meta["keypoints"]) == count


def test_toy_dataset_is_reproducible():
    def first(seed):
        return SamplesSequence.toy_dataset(2, image_size=8, seed=seed)[1]["image"]()

    assert np.array_equal(first(5), first(5))
    assert not np.array_equal(first(5), first(6))
    unseeded = SamplesSequence.toy_dataset(2, image_size=8)
    assert np.array_equal(unseeded[1]["image"](), unseeded[1]["image"]())
    copied = pickle.loads(pickle.dumps(unseeded))
    assert np.array_equal(unseeded[1]["image"](), copied[1]["image"]())


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"with_images": False}, {"mask", "instances", "bboxes", "keypoints", "metadata", "label"}),
        ({"with_objects": False}, {"image", "mask", "instances", "metadata", "label"}),
        (
            {
                "with_masks": False,
                "with_instances": False,
                "with_bboxes": False,
                "with_kpts": False,
                "key_format": "my_*",
            },
            {"my_image", "my_metadata", "my_label"},
        ),
    ],
)
def test_toy_dataset_leaves_things_out(options, keys):
    assert set(SamplesSequence.toy_dataset(1, image_size=8, **options)[0]) == keys


@pytest.mark.parametrize("options", [{"length": 0}, {"objects_range": (3, 1)}, {"image_size": 0}])
def test_toy_dataset_refuses_nonsense(options):
    with pytest.raises(PipeBuildingError, match=next(iter(options))):
        SamplesSequence.toy_dataset(**{"length": 1, **options})
