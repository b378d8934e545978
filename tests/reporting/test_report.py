"""The report of a run: what is in it, and that its size is bounded."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefect_pipestream.items import NpyNumpyItem
from prefect_pipestream.reporting.artifacts import report_markdown, write_failures
from prefect_pipestream.reporting.markdown import (
    ChunkTime,
    Failure,
    cell,
    chunks_chart,
    failures_section,
    ranges,
)
from prefect_pipestream.reporting.reports import FailedSample, RunReport
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place
from prefect_pipestream.views.changes import changes_of_run
from prefect_pipestream.views.differences import ShownChange, change_between, metadata_differences
from prefect_pipestream.views.thumbnails import SIDE, inline_pair
from tests.dataset_files import beside, made_at
from tests.prefect_layer.datasets import image_of, make_dataset

BIG = 100_000
FAILED = 5_000


def picture_of(markdown: str) -> Image.Image:
    content = markdown.partition("base64,")[2].rstrip(")")
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.fixture
def noisy(new_place: Place) -> DataStream:
    """A run that changed samples of noise, whose pictures are as large as pictures get."""
    made_at(new_place, make_dataset, samples=40)
    stream = DataStream.read_write_underfolder(new_place, run_key="r1")
    random = np.random.default_rng(1)
    with stream.commit_group() as group:
        for idx in range(40):
            noise = random.integers(0, 256, (300, 200, 3), np.uint8)
            group.set_output(idx, stream[idx].set_value("image", noise))
    return stream.with_run("r2")


def invert_all(stream: DataStream) -> None:
    with stream.commit_group(count=7) as group:
        for idx in range(len(stream)):
            sample = stream[idx]
            inverted = sample.set_value("image", 255 - sample["image"]())
            group.set_output(idx, inverted.deep_set("metadata.runs", 1))


def big_report(run_key: str) -> RunReport:
    failures = [
        FailedSample(
            idx=idx * 20,
            error_type="DecodeError",
            message=f"/data/parts/data/{idx * 20:06d}_image.png: " + "the PNG is truncated. " * 40,
            traceback="…",
            attempts=3,
        )
        for idx in range(FAILED)
    ]
    counts = {
        "written": BIG - FAILED - 2,
        "unchanged": 1,
        "skipped": 1,
        "failed": FAILED,
        "removed": 0,
    }
    return RunReport(
        run_key=run_key,
        counts=counts,
        failures=failures,
        duration_s=812.0,
        samples_per_second=BIG / 812.0,
    )


def test_report_of_many_samples_and_failures_stays_small(noisy: DataStream) -> None:
    invert_all(noisy)
    report = big_report("r2")
    chunks = [ChunkTime(str(n), dict(report.counts), 1 + n % 7) for n in range(900)]
    text = report_markdown(report, noisy, noisy, chunks, write_failures(noisy.run, report))
    assert len(text.encode()) < 500_000
    assert "4,950 more" in text
    assert text.count("![after]") >= 8


@pytest.mark.about_files
def test_report_of_many_failures_names_a_file_with_all(new_place: Path) -> None:
    stream = DataStream.read_write_underfolder(make_dataset(new_place, 3), run_key="r2")
    invert_all(stream)
    report = big_report("r2")
    full_list = write_failures(stream.run, report)
    assert full_list is not None
    assert full_list.read_text("utf-8").count("\n") == FAILED + 1
    assert f"`{full_list}`" in report_markdown(report, stream, stream, [], full_list)


def test_changes_are_spread_over_the_run_and_show_what_was_before_it(noisy: DataStream) -> None:
    invert_all(noisy)
    changes = list(changes_of_run(noisy, noisy, most=6))
    assert len(changes) == 6
    assert changes[0].idx < 7
    assert changes[-1].idx > 28
    for change in changes:
        before, after = picture_of(change.before), picture_of(change.after)
        total = np.asarray(before).astype(int) + np.asarray(after)
        assert abs(total.mean() - 255) < 3
        assert max(before.size) == SIDE
        mean, metadata = sorted(change.metadata)
        assert mean.startswith("image: mean ")
        assert metadata == "metadata.runs: 0 → 1"


def test_a_new_dataset_is_shown_beside_its_source(new_place: Place) -> None:
    made_at(new_place, make_dataset, samples=3)
    source = DataStream.read_write_underfolder(new_place)
    target = DataStream.create_new_underfolder(beside(new_place, "new"), zfill=3, run_key="r1")
    for idx in range(3):
        sample = source[idx]
        target.set_output(idx, sample.set_value("image", 255 - sample["image"]()))
    changes = list(changes_of_run(source, target))
    assert [change.idx for change in changes] == [0, 1, 2]
    assert np.array_equal(np.asarray(picture_of(changes[1].before))[::20, ::20], image_of(1))


def test_a_run_that_wrote_nothing_has_no_pictures(new_place: Place) -> None:
    made_at(new_place, make_dataset, samples=3)
    stream = DataStream.read_write_underfolder(new_place, run_key="r1")
    assert list(changes_of_run(stream, stream)) == []


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4), (9, 9, 7)])
def test_images_of_all_kinds_become_pictures(dtype: type, shape: tuple[int, ...]) -> None:
    image = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(dtype)
    before, after = inline_pair(image, image)
    assert max(picture_of(before).size) == SIDE
    assert picture_of(after).getextrema() is not None


def test_both_pictures_have_one_brightness_scale() -> None:
    dark = np.full((8, 8), 1000, np.uint16)
    before, after = inline_pair(dark, dark * 2)
    assert picture_of(before).getpixel((0, 0)) == 127
    assert picture_of(after).getpixel((0, 0)) == 255


@pytest.mark.parametrize("dtype", ["<U3", "datetime64[D]", [("x", "i4"), ("y", "i4")], "complex64"])
def test_an_array_that_is_no_image_has_no_picture(dtype: Any) -> None:
    item = NpyNumpyItem(np.zeros((4, 5), dtype))

    change = change_between(3, {"table": item}, {"table": item}, ["table"], 3)

    assert change == ShownChange(3, "", "", ("table: written",), 3)


def test_share_of_failures_is_no_rounded_product() -> None:
    counts = {"written": 71, "failed": 29}
    report = RunReport(
        run_key="k", counts=counts, failures=[], duration_s=1.0, samples_per_second=100.0
    )
    assert report.is_within(0.29)
    assert not report.is_within(0.289)


def test_what_changed_in_metadata_is_told_field_by_field() -> None:
    old = {"a": 1, "b": {"c": [1, 2]}, "gone": "x"}
    new = {"a": 1, "b": {"c": [1, 3]}, "new": 0.123456789}
    assert metadata_differences("meta", old, new) == [
        "meta.b.c[1]: 2 → 3",
        "meta.gone: x → (none)",
        "meta.new: (none) → 0.123457",
    ]
    many = metadata_differences("meta", {}, dict.fromkeys("abcdefghij", 1))
    assert many[-1] == "meta: 4 more fields"


def test_messages_are_no_markup() -> None:
    row = failures_section([Failure(3, "a|b\n<img> `x` *y* " + "z" * 999, 2)], 1, None)
    line = row.splitlines()[-1]
    assert line.count("|") == 5  # four of the table, one escaped
    assert "\\<img\\>" in line
    assert len(line) < 400
    assert cell("a\nb") == "a b"


def test_indices_in_short() -> None:
    assert ranges([3, 7, 8, 9, 12]) == "3, 7-9, 12"
    assert ranges(range(0, 200, 2), most=2) == "0, 2, …"
    assert ranges([]) == ""


def test_chart_of_any_number_of_chunks_is_a_small_picture() -> None:
    counts = {"written": 3, "unchanged": 0, "skipped": 1, "failed": 1, "removed": 0}
    for number in (1, 7, 120, 1000):
        chart = chunks_chart([ChunkTime("0-4", dict(counts), 0.0) for _ in range(number)])
        chart = chunks_chart([ChunkTime("0-4", dict(counts), n + 0.1) for n in range(number)])
        assert Image.open(io.BytesIO(chart)).width <= 1000
        assert len(chart) < 20_000
