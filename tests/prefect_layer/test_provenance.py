"""What flows note of where a run came from, and where it is shown."""

import importlib.util
import json
import os
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from pydantic import BaseModel, ConfigDict

from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.cli import main
from prefect_pipestream.flows import (
    clean_dataset,
    compact_dataset,
    export_dataset,
    import_dataset,
    process_samples,
    review_changes,
    undo_run,
)
from prefect_pipestream.sequences import DataStream, Sample, SampleStage
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.checkout import checkout_of
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import Provenance, list_runs
from tests.dataset_files import beside, made_at
from tests.layouts.photos import make_photos
from tests.underfolder.conftest import run_of
from tests.underfolder.test_provenance import git

from .artifacts import artifact_texts
from .datasets import make_dataset, truncate_image

pytestmark = pytest.mark.usefixtures("prefect_api")

N = 4
CODE = """
from prefect_pipestream.sequences import Sample

def count(sample: Sample) -> Sample:
    return sample.deep_set("metadata.runs", sample["metadata"]()["runs"] + 1)
"""


@pytest.fixture
def folder(new_place: Place) -> Place:
    return made_at(new_place, make_dataset, N)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of no checkout, in which flows run."""
    (tmp_path / "outside").mkdir()
    monkeypatch.chdir(tmp_path / "outside")
    return tmp_path / "outside"


def checkout_with(folder: Path, code: str) -> str:
    """Commits a module to a checkout; gives the commit."""
    folder.mkdir(exist_ok=True)
    (folder / "cleaning.py").write_text(code)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one more")
    return git(folder, "rev-parse", "HEAD")


def module_in(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("cleaning", folder / "cleaning.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noted(folder: Place, run_key: str | None = None) -> Provenance:
    runs = [run for run in list_runs(folder) if run_key in (None, run.run_key)]
    found = runs[-1].provenance
    assert found is not None
    return found


def process(folder: Place, transform: Any = ("invert",), **arguments: Any) -> Any:
    block = ReadWriteUnderfolder(folder=folder)
    transform = list(transform) if isinstance(transform, tuple) else transform
    return process_samples(block, transform, **{"sample_retries": 0, **arguments})


def test_a_run_notes_what_it_did_by_what_and_to_what(
    folder: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    process(folder, run_key="before")
    options = {"image": {"optimize": True}}
    process(folder, keys=["image"], encoder_options=options, run_key="k")

    found = noted(folder, "k")
    assert "invert" in found.transform
    assert found.keys == ("image",)
    assert found.encoder_options == options
    assert found.code == checkout_of([os.getcwd()])
    assert found.package == version("prefect-pipestream")
    assert found.source is not None
    assert (found.source.folder, found.source.samples) == (str(folder), N)
    assert found.source.last_run == "before"
    assert found.flow_run is not None
    assert found.flow_run.id
    assert found.flow_run.name
    assert found.flow_run.url is None or found.flow_run.id in found.flow_run.url

    capsys.readouterr()
    assert main(["runs", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)[-1]["provenance"]
    assert shown["flow_run"]["id"] == found.flow_run.id
    assert shown["source"]["last_run"] == "before"
    assert main(["runs", str(folder), "--run", "k"]) == 0
    lines = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["run"] == "k"
    assert lines["keys"] == "image"
    assert lines["source"] == f"{folder}, {N} samples, last written by run before"
    (report,) = artifact_texts("report-dataset")[:1]
    assert "## Where it came from" in report
    assert found.flow_run.name in report


def test_a_build_notes_its_source(folder: Place) -> None:
    process(folder, run_key="before")
    new, part = beside(folder, "new"), beside(folder, "part")
    process(folder, target=CreateNewUnderfolder(folder=new), run_key="k")
    source = noted(new).source
    assert source is not None
    assert (source.folder, source.samples, source.last_run) == (str(folder), N, "before")

    pipe = DataStream.read_write_underfolder(folder).input_sequence
    assert pipe is not None
    stream = DataStream(pipe.slice(0, 2), [{"to_underfolder": {"folder": part}}])
    process_samples(stream, ["identity"])
    source = noted(part).source
    assert source is not None
    assert (source.folder, source.samples) == (None, 2)
    assert source.pipe is not None
    assert "slice(" in source.pipe


def test_the_code_is_that_of_the_transform_or_of_where_the_flow_runs(
    folder: Place, outside: Path, tmp_path: Path
) -> None:
    process(folder, run_key="none")
    assert noted(folder, "none").code is None

    mine = checkout_with(tmp_path / "mine", CODE)
    process(folder, module_in(tmp_path / "mine").count, run_key="mine")
    code = noted(folder, "mine").code
    assert code is not None
    assert (code.commit, code.is_clean, code.folder) == (mine, True, str(tmp_path / "mine"))

    here = checkout_with(outside, "")
    (outside / "cleaning.py").write_text("changed = True\n")
    process(folder, run_key="here")
    code = noted(folder, "here").code
    assert code is not None
    assert (code.commit, code.is_clean) == (here, False)


@pytest.mark.about_files
def test_a_checkout_that_came_with_the_dataset_is_not_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout_with(folder, "")
    monkeypatch.chdir(folder)
    process(folder)
    assert noted(folder).code is None


def test_without_git_a_run_notes_the_rest(folder: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert process(folder).counts["written"] == N
    found = noted(folder)
    assert found.code is None
    assert found.host
    assert found.transform is not None


def test_a_run_that_goes_on_by_other_code_warns_and_keeps_what_it_began_with(
    folder: Place, outside: Path
) -> None:
    first = checkout_with(outside, CODE)
    truncate_image(folder, 2)
    process(folder, ["verify-items", "invert"], max_failed=1, run_key="k")
    again = process(folder, ["verify-items", "invert"], max_failed=1, run_key="k")
    assert again.warnings == []

    second = checkout_with(outside, CODE + "# mended\n")
    again = process(folder, ["verify-items", "invert"], max_failed=1, run_key="k", select="failed")
    (warning,) = again.warnings
    assert f"was begun by other code (commit {first})" in warning
    assert second in warning
    code = noted(folder, "k").code
    assert code is not None
    assert code.commit == first


class Credentials(BaseModel):
    """Holds a block."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    secret: Secret[str]


class StageThatLogsIn(SampleStage):
    """Has a secret in it."""

    token: Secret[str]
    inside: Credentials

    def __call__(self, sample: Sample) -> Sample:
        return sample.deep_set("metadata.length", len(self.token.get()))


def private_files(place: Place) -> dict[str, bytes]:
    """The files that this package has of a dataset for itself."""
    if is_address(place):
        store = open_store(Address.of(place))
        return {s.key: store.read(s.key).data for s in store.objects_in(".pipestream")}
    paths = Path(place, ".pipestream").rglob("*")
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def test_a_secret_is_written_nowhere(folder: Place) -> None:
    secret = Secret[str](value="hunter2")
    process(folder, StageThatLogsIn(token=secret, inside=Credentials(secret=secret)))
    private = private_files(folder)
    assert private
    assert not [name for name, content in private.items() if b"hunter2" in content]
    assert "StageThatLogsIn" in json.dumps(noted(folder).transform)
    assert "hunter2" not in artifact_texts("report-dataset")[0]


class Untold:
    """A transform with an argument that cannot be told."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __call__(self, sample: Sample) -> Sample:
        return sample.deep_set("metadata.runs", 1)


def test_what_cannot_be_told_stops_no_run(folder: Place) -> None:
    assert process(folder, Untold()).counts["written"] == N
    assert noted(folder).transform == f"{__name__}:Untold"


def test_an_argument_of_ten_megabytes_is_cut(folder: Place) -> None:
    def big(sample: Sample, table: str) -> Sample:
        return sample

    process(folder, partial(big, table="x" * 10_000_000), run_key="k")
    assert os.path.getsize(run_of(folder, "k").at("run.json")) < 10_000
    assert "cut: 10,000,000 characters" in json.dumps(noted(folder).transform)


def test_undo_compaction_and_review_note_who_and_by_what(folder: Place, outside: Path) -> None:
    commit = checkout_with(outside, "")
    process(folder, run_key="k")
    undo = noted(folder, undo_run(folder, "k"))
    DataStream.read_write_underfolder(folder, run_key="removal").remove(1)
    compacted = noted(folder, compact_dataset(folder))
    reviewed = noted(folder, review_changes(folder, ["identity"]).run_key)

    for found in (undo, compacted, reviewed):
        assert found.flow_run is not None
        assert found.flow_run.id
        assert found.code is not None
        assert found.code.commit == commit
        assert found.user
        assert found.package
    assert (undo.transform, compacted.transform) == (None, None)
    assert reviewed.transform == {"identity": {}}
    assert reviewed.source is not None
    assert reviewed.source.samples == N - 1
    for key in ("undo-dataset", "compact-dataset", "review-result-dataset"):
        assert commit in artifact_texts(key)[0]


def test_import_and_export_note_their_layout_and_source(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", "b.jpg", "d.jpg")
    import_dataset("images", photos, tmp_path / "in")
    found = noted(tmp_path / "in")
    assert found.transform == {"import": {"layout": "images", "options": {}}}
    assert found.source is not None
    assert found.source.layout == "images"
    assert found.source.folder == str(photos)
    assert found.source.samples == len(DataStream.read_write_underfolder(tmp_path / "in"))

    export_dataset(tmp_path / "in", "images", tmp_path / "out")
    text = artifact_texts("export-in")[0]
    assert "Where it came from" in text
    assert noted(tmp_path / "in").flow_run is not None
    assert "last written by run" in text


def test_the_deployment_and_who_created_the_flow_run_are_noted(folder: Place) -> None:
    deployment = clean_dataset.to_deployment("nightly").apply()
    parameters = {"dataset": str(folder), "transform": ["invert"]}
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
    run_flow(clean_dataset, flow_run=flow_run, parameters=parameters)

    found = noted(folder, str(flow_run.id)).flow_run
    assert found is not None
    assert (found.id, found.name) == (str(flow_run.id), flow_run.name)
    assert found.deployment == "nightly"
    by = flow_run.created_by
    assert found.created_by == (None if by is None else by.display_value or by.type)
