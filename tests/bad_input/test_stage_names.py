"""A name in a parameter is that of a stage or an operation, never of any other thing."""

import sys
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream.errors import PipeBuildingError
from prefect_pipestream.sequences import DataStream, SamplesSequence, build_pipe
from prefect_pipestream.stages import SampleStage, resolve_stage

NOT_STAGES = [
    *("os:system", "builtins:eval", "builtins:exec", "builtins:open", "subprocess:run"),
    *("subprocess:Popen", "os:remove", "shutil:rmtree", "pickle:loads", "importlib:import_module"),
    *("pydantic:BaseModel", "pathlib:Path", "builtins:object", "builtins:type", "os:path"),
    *("prefect_pipestream.items:PngImageItem", "prefect_pipestream.sequences:SamplesSequence"),
    *(
        "prefect_pipestream.sequences:DataStream",
        "prefect_pipestream.flows.processing:process_samples",
    ),
    *(
        "prefect_pipestream.sequences:SampleStage",
        "prefect_pipestream.sequences.stage:FunctionStage",
    ),
    *("prefect_pipestream.sequences.stage:resolve_stage", "prefect_pipestream.stages:fingerprint"),
    *(
        "tests.bad_input.test_stage_names:plain_function",
        "tests.bad_input.test_stage_names:NOT_STAGES",
    ),
]
NOT_NAMES = [
    *(
        "",
        ":",
        ":system",
        "os:",
        "os:system:x",
        "os.system",
        "../up:Stage",
        "/etc:x",
        "os:path.join",
    ),
    *(
        "a b:c",
        "os :system",
        "os;system",
        "lambda sample: sample",
        "__import__('os')",
        "os:sys tem",
    ),
    *("no_such_module:Stage", "prefect_pipestream.stages:NoSuchStage", "no-such-stage", "."),
    *("prefect_pipestream.no:Stage", ".stages:StageInvert", "os..path:join", "\0", "\ud800:x"),
]
NOT_SPECS = [
    None,
    3,
    1.5,
    True,
    b"invert",
    object(),
    {1: 2},
    {None: None},
    [None],
    [[3]],
    {"invert"},
]


def plain_function(sample: Any) -> Any:
    """Not decorated, and so no stage."""
    raise AssertionError("was called")


@pytest.fixture(autouse=True)
def nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"was called with {args}")

    monkeypatch.setattr("os.system", called)
    monkeypatch.setattr("subprocess.run", called)


def wrapped(name: Any) -> list[Any]:
    """The ways to name a stage in a specification."""
    return [
        name,
        [name],
        ["identity", name],
        [[name]],
        *([] if not isinstance(name, str) else [{name: "ls"}, {name: {}}, {name: ["ls"]}]),
        {"compose": [name]},
        {"compose": {"stages": [name]}},
        {"timer": name},
        {"timer": {"stage": name}},
        {"timer": {"stage": {"compose": [name]}}},
        {"lambda": name},
        {"lambda": {"func": name}},
        {"lambda": [name]},
    ]


# Not by their addresses: pytest-xdist wants the same names in all of its processes.
@pytest.mark.parametrize(
    "name",
    [*NOT_STAGES, *NOT_NAMES, *NOT_SPECS],
    ids=lambda name: repr(name).partition(" at 0x")[0],
)
def test_what_is_no_stage_is_refused_wherever_it_is_named(name: Any, dataset: Path) -> None:
    for spec in wrapped(name):
        if spec in ([None], [[None]]):
            continue
        with pytest.raises(PipeBuildingError):
            resolve_stage(spec)
        with pytest.raises(PipeBuildingError):
            build_pipe([{"from_underfolder": dataset}, {"map": {"stage": spec}}])
        with pytest.raises(PipeBuildingError):
            SamplesSequence.from_underfolder(dataset).map(spec)


@pytest.mark.parametrize("name", NOT_STAGES)
def test_the_message_says_what_was_given_and_what_is_allowed(name: str) -> None:
    with pytest.raises(PipeBuildingError) as caught:
        resolve_stage(name)
    assert name in str(caught.value)
    assert "SampleStage" in str(caught.value) or "abstract" in str(caught.value)


@pytest.mark.parametrize("name", [*NOT_STAGES, *NOT_NAMES])
def test_what_is_no_operation_is_refused(name: str, dataset: Path) -> None:
    for spec in (name, [name], {name: {}}, [{"from_underfolder": dataset}, {name: "ls"}]):
        with pytest.raises(PipeBuildingError):
            build_pipe(spec)
        with pytest.raises(PipeBuildingError):
            DataStream(None, spec)


@pytest.mark.parametrize(
    "operation",
    [
        {"filter": "os:system"},
        {"filter": {"filter_fn": "os:system"}},
        {"sort": "os:system"},
        {"sort": {"key_fn": "builtins:print"}},
        {"map_if": {"stage": "identity", "condition": "os:system"}},
        {"validate_samples": {"sample_schema": "os:system"}},
        {"validate_samples": {"sample_schema": "subprocess:Popen"}},
        {"validate_samples": {"sample_schema": {"image": {"class_path": "os:system"}}}},
        {
            "validate_samples": {
                "sample_schema": {"image": {"class_path": "Item", "validator": "os:system"}}
            }
        },
        {"enumerate": {"item_cls": "subprocess:Popen"}},
        {"data_cache": ["subprocess:Popen"]},
        {"cat": ["os:system"]},
        {"zip": "os:system"},
    ],
    ids=str,
)
def test_no_argument_of_an_operation_names_a_callable(
    operation: dict[str, Any], dataset: Path
) -> None:
    with pytest.raises(PipeBuildingError):
        build_pipe([{"from_underfolder": dataset}, operation])


@pytest.mark.parametrize(
    "source", [{"from_callable": {"generator_fn": "os:system", "length": 1}}, {"from_list": "os"}]
)
def test_no_source_names_a_callable(source: dict[str, Any]) -> None:
    with pytest.raises(PipeBuildingError):
        build_pipe(source)


@pytest.mark.parametrize(
    "code",
    ["import sys; sys.exit(3)", "1 / 0", "def (", "import no_such_module", "raise KeyboardError"],
)
def test_a_module_that_cannot_be_imported_is_a_clear_error(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_stages.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PipeBuildingError, match=r"their_stages:Stage.*cannot be imported"):
        resolve_stage("their_stages:Stage")
    sys.modules.pop("their_stages", None)


def test_a_stage_of_an_importable_module_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_stages.py").write_text(
        "from prefect_pipestream.stages import SampleStage, sample_stage\n"
        "class Mine(SampleStage):\n"
        "    def __call__(self, sample):\n"
        "        return sample\n"
        "@sample_stage\n"
        "def decorated(sample, amount: int = 1):\n"
        "    return sample\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(resolve_stage("my_stages:Mine"), SampleStage)
    assert isinstance(resolve_stage({"my_stages:decorated": 3}), SampleStage)
    with pytest.raises(PipeBuildingError, match="amount"):
        resolve_stage({"my_stages:decorated": "many"})
    sys.modules.pop("my_stages", None)
