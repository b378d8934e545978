"""Any damage to annotation files is an error of ours, of the file or of one sample."""

import copy
import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_pipestream.errors import DatasetError, ItemError, SampleError
from prefect_pipestream.exporting import export
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.stages import StageAnnotationsToMask
from tests.layouts import test_coco, test_voc

junk = st.sampled_from(
    [None, True, -1, 0, 1e308, float("nan"), 10**30, "", "x", "../x.jpg", "\ud800", [], [1], {}]
)
often = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_in(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from paths_in(inner, (*path, place))


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


def use(source: SamplesSequence, folder: Any, target: str) -> None:
    """Reads all samples, paints them and writes them out as both layouts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            count = len(source)
            good = []
            for idx in range(count):
                try:
                    good.append(source[idx])
                    mask = StageAnnotationsToMask(mask_key="m")(good[-1])["m"]()
                    assert mask.dtype in (np.uint8, np.uint16)
                except (ItemError, SampleError):
                    continue
        except DatasetError:
            return
        except ItemError:
            return
        for kind in ("coco", "voc"):
            samples = SamplesSequence.from_list(good)
            export(samples, kind, folder / f"{target}-{kind}", max_failed=1.0)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return test_coco.specimen(tmp_path_factory.mktemp("damaged"), count=3)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return test_voc.specimen(tmp_path_factory.mktemp("damaged") / "voc")


@often
@given(data=st.data())
def test_any_value_of_coco_is_another(coco, tmp_path_factory, data):
    content = json.loads(coco.read_text())
    paths = list(paths_in(content))
    bad = replaced(content, data.draw(st.sampled_from(paths)), data.draw(junk))
    folder = tmp_path_factory.mktemp("used")
    (folder / "instances_val2017.json").write_text(json.dumps(bad))
    source = SamplesSequence.from_coco(folder, images=coco.parent.parent)
    use(source, folder, "out")


@often
@given(data=st.data())
def test_any_bytes_of_voc_are_others(voc, tmp_path_factory, data):
    text = data.draw(st.sampled_from([test_voc.VOC2007, test_voc.VOC2012])).encode()
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 40))
    instead = data.draw(st.binary(max_size=4) | st.sampled_from([b"<a>", b"]]>", b"&#0;", b"-9"]))
    path = voc / "Annotations/000001.xml"
    path.write_bytes(text[:start] + instead + text[start + length :])
    use(SamplesSequence.from_voc(voc), tmp_path_factory.mktemp("used"), "out")
