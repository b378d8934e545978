import inspect
import subprocess
import sys
import time

import pytest

import prefect_pipestream.sequences as sequences
from prefect_pipestream.errors import MissingExtraError
from prefect_pipestream.items import YamlMetadataItem
from prefect_pipestream.sequences import Sample, SamplesSequence
from prefect_pipestream.sequences.registry import BUILTIN, find_operation


def test_every_public_name_is_there():
    for name in sequences.__all__:
        assert getattr(sequences, name) is not None
    assert set(sequences.__all__) <= set(dir(sequences))
    with pytest.raises(AttributeError):
        sequences.nothing  # noqa: B018


@pytest.mark.parametrize("title", list(BUILTIN))
def test_a_method_and_its_operation_have_the_same_arguments(title):
    cls = find_operation(title)
    fields = {
        field.alias or name: ...
        if field.is_required()
        else field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
        if name != cls.source_field
    }
    parameters = [
        p
        for name, p in inspect.signature(getattr(SamplesSequence, title)).parameters.items()
        if name != "self"
    ]
    named = {
        p.name: ... if p.default is p.empty else p.default
        for p in parameters
        if p.kind is not p.VAR_POSITIONAL
    }
    if title == "cat":
        named["to_cat"] = ...  # also given by position
    if title in ("data_cache", "no_data_cache"):
        named = {"items": []}
    assert named == fields


@pytest.mark.parametrize("title", list(BUILTIN))
def test_every_argument_is_described(title):
    method = getattr(SamplesSequence, title)
    parameters = list(inspect.signature(method).parameters.values())
    for parameter in parameters[0 if inspect.ismethod(method) else 1 :]:
        name = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        assert f"\n    {name}: " in inspect.getdoc(method)  # Python 3.13 dedents `__doc__`


def test_importing_brings_no_prefect_and_no_image_libraries():
    code = (
        "import sys; from prefect_pipestream.sequences import SamplesSequence, DataStream,"
        " build_pipe;"
        "print([m for m in ('prefect', 'PIL', 'imageio', 'tifffile', 'yaml', 'rich', 'torch', 'av')"
        " if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_torch_is_asked_for_only_when_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "prefect_pipestream.sequences.torch_dataset", raising=False)
    with pytest.raises(MissingExtraError, match="pip install torch"):
        SamplesSequence.from_list([]).torch_dataset()


def test_a_torch_dataset_has_the_samples():
    pytest.importorskip("torch")
    dataset = SamplesSequence.toy_dataset(3, image_size=8).torch_dataset()
    assert len(dataset) == 3
    assert dataset[1]["metadata"]()["id"] == 1


def test_video_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"prefect-pipestream\[video\]"):
        SamplesSequence.from_video(tmp_path / "v.mp4")


def test_a_chain_of_three_pipes_costs_microseconds_a_sample():
    source = SamplesSequence.from_list([Sample({"x": YamlMetadataItem(i)}) for i in range(1000)])
    chain = source.slice(start=1).shuffle(seed=1).select(range(900))
    len(chain)

    def cost():
        began = time.perf_counter()
        for idx in range(900):
            chain[idx]
        return (time.perf_counter() - began) / 900

    assert min(cost() for _ in range(10)) < 10e-6
