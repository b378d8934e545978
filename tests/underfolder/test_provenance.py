"""Where a run came from, as its ledger says: by what code, by whom; whatever a file says."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field, SecretStr

from prefect_pipestream.sequences import DataStream, Sample, SampleStage, resolve_stage
from prefect_pipestream.stages import StageInvert
from prefect_pipestream.stages.noted import noted_transform, own_files
from prefect_pipestream.storage.address import Address, Place, is_address
from prefect_pipestream.storage.checkout import Checkout, checkout_of
from prefect_pipestream.storage.store import open_store
from prefect_pipestream.underfolder import list_runs
from prefect_pipestream.underfolder.ledger.plain import HIDDEN, MOST, noted_plain, plain
from prefect_pipestream.underfolder.ledger.provenance import FlowRunNote, Provenance, SourceState
from tests.underfolder.conftest import forget_log, run_of


class StageOfOurs(SampleStage):
    """Has arguments of all kinds."""

    size: tuple[int, int] = (1, 2)
    password: str = ""
    key: SecretStr = SecretStr("")
    table: list[Any] = Field(default_factory=list, repr=False)
    then: SampleStage | None = None

    def __call__(self, sample: Sample) -> Sample:
        return sample


def of_ours(sample: Sample, amount: int = 1) -> Sample:
    return sample


# -- the code ------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    who = {"NAME": "Ada", "EMAIL": "ada@example.org"}
    environment = {f"GIT_{role}_{what}": of for what, of in who.items() for role in ROLES}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


ROLES = ("AUTHOR", "COMMITTER")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit, of one file."""
    folder = tmp_path / "checkout"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "code.py").write_text("a = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_the_checkout_of_a_file_has_its_commit_and_says_whether_it_is_clean(checkout: Path) -> None:
    commit, code = git(checkout, "rev-parse", "HEAD"), checkout / "inner" / "code.py"
    clean = Checkout(commit, True, str(checkout))
    assert checkout_of([str(code)]) == clean
    assert checkout_of([str(checkout / "inner")]) == clean

    (checkout / "new.py").write_text("b = 2\n")
    assert checkout_of([str(checkout)]) == clean
    assert checkout_of([str(code), str(checkout / "new.py")]) == Checkout(
        commit, False, str(checkout)
    )
    code.write_text("a = 2\n")
    assert checkout_of([str(checkout)]) == Checkout(commit, False, str(checkout))


def test_where_there_is_no_commit_there_is_no_checkout(checkout: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "empty")
    (tmp_path / "plain").mkdir()
    (tmp_path / "fake" / ".git").mkdir(parents=True)
    for name in ("empty", "plain", "fake", "missing"):
        assert checkout_of([str(tmp_path / name)]) is None
    installed = checkout / ".venv" / "site-packages" / "theirs.py"
    assert checkout_of([str(installed)]) is None
    assert checkout_of([]) is None


def test_a_checkout_in_a_strangers_folder_does_not_count(checkout: Path) -> None:
    inner = str(checkout / "inner")
    assert checkout_of([inner], apart=[str(checkout)]) is None
    assert checkout_of([inner], apart=[str(checkout.parent)]) is None
    assert checkout_of([inner], apart=[inner]) is not None


def test_settings_of_a_checkout_start_no_program(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "config", "core.fsmonitor", f"touch {tmp_path / 'started'}; false")
    assert checkout_of([str(checkout)]) is not None
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60 & sleep 60", "exit 1", "echo no"])
def test_a_git_that_hangs_or_fails_is_no_answer(
    script: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert checkout_of([str(checkout)], limit_s=0.2) is None


def test_without_git_there_is_no_answer(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert checkout_of([str(checkout)]) is None


def test_a_git_that_calls_the_tests_is_not_asked_of_its_own_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    found = checkout_of([str(checkout)])
    assert found is not None
    assert found.folder == str(checkout)


# -- the transform -------------------------------------------------------------------------


def test_a_transform_is_noted_as_a_list_of_operations_that_makes_an_equal_one() -> None:
    operations = ["verify-items", {"resize-images": {"size": [64, 32]}}]
    noted = json.loads(json.dumps(noted_transform(resolve_stage(operations))))
    assert [next(iter(one)) for one in noted] == ["verify-items", "resize-images"]
    assert noted[1]["resize-images"]["size"] == [64, 32]
    assert resolve_stage(noted) == resolve_stage(operations)


@pytest.mark.parametrize(
    ("transform", "noted"),
    [
        (of_ours, f"{__name__}:of_ours"),
        (partial(of_ours, amount=3), {f"{__name__}:of_ours": {"args": [], "amount": 3}}),
        ([StageInvert(), of_ours], [{"invert": {"key_list": ["image"]}}, f"{__name__}:of_ours"]),
        (StageInvert().__call__, "prefect_pipestream.stages.values:StageInvert.__call__"),
    ],
)
def test_a_callable_is_noted_by_its_module_and_name(transform: Any, noted: Any) -> None:
    found = noted_transform(resolve_stage(transform, allow_callable=True))
    if isinstance(transform, list):
        assert found[1] == noted[1]
    else:
        assert found == noted


def test_secrets_are_not_noted() -> None:
    stage = StageOfOurs(password="hunter2", key=SecretStr("hunter3"), table=["hunter4"])
    outer = StageOfOurs(then=stage)
    assert "hunter" not in json.dumps(noted_transform(outer))
    noted = plain({"api_key": "k", "url": "s3://user:pass@host/x", "auth": {"Token": b"t"}})
    assert noted == {"api_key": HIDDEN, "url": f"s3://{HIDDEN}@host/x", "auth": {"Token": HIDDEN}}


BIG: dict[str, Any] = {
    "a text": "x" * 10_000_000,
    "a list": list(range(3_000_000)),
    "a mapping": {str(number): number for number in range(500_000)},
    "empty ones": [[] for _ in range(500_000)],
    "bytes": b"x" * 10_000_000,
    "an array": np.zeros((2000, 1250), np.float32),
    "a number": 1 << 10_000_000,
}


@pytest.mark.parametrize("kind", BIG)
def test_what_is_long_is_cut_with_a_word(kind: str) -> None:
    noted = noted_transform(StageOfOurs(then=resolve_stage({"invert": {}})))
    assert "cut" not in json.dumps(noted)
    value = noted_plain(plain({"table": BIG[kind], "size": [1]}))
    told = json.dumps(value)
    assert len(told) < 5 * MOST
    assert "cut" in told or "10,000,000 bytes" in told or "ndarray" in told
    assert noted_plain(value) == value


def test_what_contains_itself_ends() -> None:
    value: list[Any] = []
    value.append(value)
    assert "cut: nested deeper" in json.dumps(plain(value))


def test_own_code_is_found_by_its_files() -> None:
    stages = resolve_stage(
        ["invert", StageOfOurs(then=StageInvert()), partial(of_ours)], **FROM_PYTHON
    )
    assert set(own_files(stages)) == {__file__}
    assert list(own_files(resolve_stage(["invert", "verify-items"]))) == []


FROM_PYTHON: dict[str, Any] = {"allow_callable": True}


# -- the ledger ----------------------------------------------------------------------------


def test_a_stream_notes_who_wrote_and_with_which_version(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="k")
    stream.set_output(0, stream[0].deep_set("metadata.runs", 1))
    (run,) = list_runs(dataset)
    assert run.provenance is not None
    assert run.provenance.package == version("prefect-pipestream")
    assert run.provenance.python
    assert (run.provenance.user, run.provenance.host) == (run.user, run.host)
    assert run.provenance.code is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without a name")
def test_who_has_no_name_is_noted_by_number() -> None:
    code = (
        "import os\n"
        "from prefect_pipestream.underfolder.ledger.provenance import who\n"
        "os.setuid(54321)\n"
        "print(who()['user'])\n"
    )
    names = ("LOGNAME", "USER", "LNAME", "USERNAME")
    environment = {name: one for name, one in os.environ.items() if name not in names}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "54321"


def test_it_is_read_as_it_was_noted() -> None:
    whole = Provenance(
        transform=[{"invert": {"keys": ["image"], "deep": None}}],
        keys=("image", "mask"),
        encoder_options={"image": {"quality": 90}},
        code=Checkout("a" * 40, None, "/home/ada/code"),
        package="1.2.3",
        python="3.11.2",
        flow_run=FlowRunNote(
            "id", "name", "https://ui.example.org/runs/flow-run/1", "nightly", "Ada"
        ),
        source=SourceState("/data", 300, "k", None, "coco"),
        user="ada",
        host="engine",
    )
    fact = json.loads(json.dumps(whole.fact()))
    assert Provenance.of({"provenance": fact, "user": "ada", "host": "engine"}) == whole
    assert Provenance.of({"user": "ada"}) is None
    assert dict(whole.lines())["source"] == "/data (coco), 300 samples, last written by run k"


FORGED: list[Any] = [
    None,
    [],
    "text",
    {"code": {"commit": "-rf", "folder": "/", "is_clean": True}},
    {"code": {"commit": "a" * 40}, "keys": [1, [2]], "source": 3, "flow_run": []},
    {"code": 1, "keys": "ab", "package": 3, "python": ["3"], "transform": {"a": [{}] * 99_999}},
    {"flow_run": {"url": "javascript:alert(1)", "name": "\ud800\x1b[2J|x`"}},
    {"flow_run": {"url": "https://x/)[a](b", "id": 7}, "source": {"samples": -1, "folder": [1]}},
    {"source": {"samples": True, "pipe": "x" * 9_999_999}},
    {"transform": json.loads("[" * 400 + "]" * 400)},
    {"transform": {"a": float("nan"), "b": float("inf"), "c": "\udcff"}},
]


def forge_provenance(dataset: Place, forged: Any) -> None:
    """Lets the only run of a dataset have noted something else."""
    if is_address(dataset):
        store = open_store(Address.of(dataset))
        entries = {
            stat.key: json.loads(store.read(stat.key).data)
            for stat in store.objects_in(".pipestream/log")
        }
        ((key, entry),) = [
            one for one in entries.items() if "provenance" in one[1].get("facts", {})
        ]
        entry["facts"]["provenance"] = forged
        store.put(key, json.dumps(entry).encode())
        forget_log(Address.of(dataset))
    else:
        note = Path(run_of(dataset, "k").at("run.json"))
        note.write_text(json.dumps({**json.loads(note.read_text()), "provenance": forged}))


@pytest.mark.parametrize("forged", FORGED)
def test_what_a_stranger_noted_is_read_without_harm(
    forged: Any, dataset: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect_pipestream.cli import main
    from prefect_pipestream.reporting.markdown import provenance_section

    stream = DataStream.read_write_underfolder(dataset, run_key="k")
    stream.set_output(0, stream[0].deep_set("metadata.runs", 1))
    forge_provenance(dataset, forged)

    (run,) = list_runs(dataset)
    assert main(["runs", str(dataset), "--json"]) == 0
    assert len(json.dumps(json.loads(capsys.readouterr().out))) < 10 * MOST
    assert main(["runs", str(dataset), "--run", "k"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    section = provenance_section(run.provenance)
    section.encode()
    assert "javascript" not in section
    if run.provenance is not None:
        assert run.provenance.package != version("prefect-pipestream")
        assert run.provenance.code is None
        assert run.provenance.flow_run is None or run.provenance.flow_run.url is None


def test_a_run_that_is_asked_for_and_is_not_there_is_an_error(
    dataset: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect_pipestream.cli import main

    assert main(["runs", str(dataset), "--run", "other"]) == 1
    assert "no run 'other'" in capsys.readouterr().err
