import json
import os
import pty
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from prefect_pipestream.cli import main
from prefect_pipestream.items import PngImageItem
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.underfolder.opening import open_writer
from tests.dataset_files import Files

from .conftest import contents, ended


def a_run(folder: Place, run_key: str = "k", indices: tuple[int, ...] = (1, 2)) -> None:
    with open_writer(folder, exists_ok=True, run_key=run_key).batch() as group:
        for idx in indices:
            group.set_output(idx, {"image": PngImageItem(np.full((4, 5, 3), 200, np.uint8))})
    ended(folder, run_key)


def shell(*arguments: object) -> tuple[int, str, str]:
    """Runs the command as a script would: status, standard output and error.

    No other process sees a bucket in the memory of this one.
    """
    if any(map(is_address, arguments)):
        return in_process(*map(str, arguments))
    command = [sys.executable, "-m", "prefect_pipestream", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def in_process(*arguments: str) -> tuple[int, str, str]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as error:
        status = main(list(arguments))
    return status, out.getvalue(), error.getvalue()


def terminal(*arguments: object) -> str:
    """Runs the command in a terminal of 120 columns, and returns what it shows."""
    command = [sys.executable, "-m", "prefect_pipestream", *map(str, arguments)]
    here, there = pty.openpty()
    env = {**os.environ, "COLUMNS": "120", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, env=env)
    os.close(there)
    shown = b""
    try:
        while chunk := os.read(here, 4096):
            shown += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(here)
    process.wait()
    return shown.decode()


def test_runs_are_listed_for_scripts_in_tabs_or_json(dataset: Place) -> None:
    a_run(dataset)
    status, out, _ = shell("runs", dataset)
    header, line, total = out.splitlines()
    assert status == 0
    assert header.split("\t")[:3] == ["run", "state", "started"]
    assert line.split("\t")[:2] == ["k", "finished"]
    assert "2 written" in line
    assert total.startswith("1 run; undo holds ")
    status, out, _ = shell("runs", dataset, "--json")
    (run,) = json.loads(out)
    assert (run["run_key"], run["state"], run["counts"]["written"]) == ("k", "finished", 2)
    assert run["undo_bytes"] > 0


@pytest.mark.about_files
def test_in_a_terminal_runs_are_a_table(dataset: Path) -> None:
    a_run(dataset)
    shown = terminal("runs", dataset)
    assert "─" in shown
    assert "2 written" in shown


def test_a_run_is_undone_and_then_listed_on_demand_only(dataset: Place) -> None:
    before = contents(dataset)
    a_run(dataset)
    status, out, _ = shell("undo", dataset, "k")
    assert status == 0
    assert "2 samples restored" in out
    assert "'undo:k'" in out
    assert contents(dataset) == before
    _, out, _ = shell("runs", dataset, "--json")
    assert [run["run_key"] for run in json.loads(out)] == ["undo:k"]
    _, out, _ = shell("runs", dataset, "--all", "--json")
    assert [run["run_key"] for run in json.loads(out)] == ["k", "undo:k"]
    status, out, _ = shell("undo", dataset, "undo:k", "--json")
    assert (status, json.loads(out)["files"]) == (0, 2)


def test_several_undone_runs_are_spoken_of_as_several(dataset: Place) -> None:
    a_run(dataset, "a")
    a_run(dataset, "b")
    _, out, _ = shell("undo", dataset, "b", "a")
    assert out.startswith("Runs 'b' and 'a' are undone")
    assert "To have their changes back" in out


def test_a_refused_undo_says_why_and_exits_with_1(dataset: Place) -> None:
    before = contents(dataset)
    a_run(dataset)
    Files(dataset)["data/000001_image.png"] = b"mine"
    status, out, error = shell("undo", dataset, "k")
    assert (status, out) == (1, "")
    assert "000001_image.png" in error
    assert "Traceback" not in error
    status, out, _ = shell("undo", dataset, "k", "--json")
    assert status == 1
    assert json.loads(out)["error"]["type"] == "UndoRefusedError"
    assert shell("undo", dataset, "k", "--force")[0] == 0
    assert contents(dataset) == before


@pytest.mark.parametrize("command", [["runs"], ["check"], ["undo", "k"]])
def test_a_missing_dataset_is_a_sentence_and_1(new_place: Place, command: list[str]) -> None:
    status, _, error = shell(command[0], new_place, *command[1:])
    assert status == 1
    assert str(new_place) in error
    assert "Traceback" not in error


def test_check_exits_with_1_as_long_as_something_is_wrong(dataset: Place) -> None:
    assert shell("check", dataset)[:2] == (0, "6 samples, 19 items decoded: no problem.\n")
    Files(dataset)["data/stray"] = b"x"
    status, out, _ = shell("check", dataset)
    assert status == 1
    assert "stray\t\tdata/stray\tno" in out
    status, out, _ = shell("check", dataset, "--json")
    assert (status, json.loads(out)["ok"]) == (1, False)
    status, out, _ = shell("check", dataset, "--fix", "--json")
    assert status == 0
    assert json.loads(out)["problems"][0]["mended"] is True
    assert shell("check", dataset)[0] == 0


@pytest.mark.about_files
def test_check_in_a_terminal_shows_what_is_wrong(dataset: Path) -> None:
    (dataset / "data/000003_label.txt").write_bytes(b"")
    shown = terminal("check", dataset)
    assert "undecodable" in shown
    assert "data/000003_label.txt" in shown
    assert "6 samples, 18 items decoded: 1 problem." in shown


@pytest.mark.about_files
def test_a_remedy_is_said_once_and_as_a_command(dataset: Path) -> None:
    a_run(dataset)
    (packed,) = (dataset / ".pipestream").rglob("samples.npz")
    packed.write_bytes(b"broken")
    status, out, _ = shell("check", dataset)
    assert status == 1
    assert out.count("`pipestream check --fix` puts it aside.") == 1


def test_stages_are_listed_and_each_explained() -> None:
    status, listed, _ = shell("stages")
    assert status == 0
    assert "resize-images\tResizes images and masks" in listed

    status, explained, _ = shell("stages", "resize-images")
    assert status == 0
    assert "size\t(needed)\tHeight and width in pixels" in explained

    _, out, _ = shell("stages", "resize-images", "--json")
    arguments = json.loads(out)["arguments"]
    assert (arguments["size"]["needed"], arguments["size"]["default"]) == (True, None)
    assert arguments["images"]["needed"] is False
    assert isinstance(arguments["images"]["default"], list | None)

    status, _, error = shell("stages", "resize-image")
    assert status == 2
    assert "resize-images" in error


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "prefect_pipestream", "stages"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before anything is written
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


def test_old_runs_are_pruned(dataset: Place) -> None:
    a_run(dataset)
    status, out, _ = shell("prune", dataset, "--older-than", "1d")
    assert (status, out) == (0, "0 runs removed; 0 B freed.\n")
    status, out, _ = shell("prune", dataset, "--older-than", "0m", "--json")
    assert (status, [run["run_key"] for run in json.loads(out)]) == (0, ["k"])
    assert json.loads(shell("runs", dataset, "--json")[1]) == []


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["runs"], ["prune", "x"], ["prune", "x", "--older-than", "soon"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    status, out, error = shell(*arguments)
    assert status == 2
    assert "Usage:" in error + out


@pytest.mark.about_files
def test_prefect_is_not_imported_for_it(dataset: Path) -> None:
    code = (
        "import sys; from prefect_pipestream.__main__ import main\n"
        "for command in ('runs', 'check'): main([command, sys.argv[1]])\n"
        "sys.exit('prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(dataset)], check=False).returncode == 0


def test_every_public_name_is_there_and_loaded_when_it_is_used() -> None:
    code = (
        "import sys, prefect_pipestream as package\n"
        "from prefect_pipestream import check, list_runs, prune_runs, undo_run\n"
        "assert 'prefect' not in sys.modules\n"
        "assert callable(check) and dir(package) == sorted(package.__all__)\n"
        "for name in package.__all__: getattr(package, name)\n"
        "try: package.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.about_files
def test_names_that_are_no_text_or_command_a_terminal_are_shown_escaped(dataset: Path) -> None:
    a_run(dataset)
    info = dataset / ".pipestream/runs/k/run.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "host": "\udcff\x1b[2Jé"}))
    (dataset / "data" / os.fsdecode(b"\xff\x1b]0;x\x07")).write_text("")
    assert "@\\udcff\\x1b[2Jé" in shell("runs", dataset)[1]
    assert "data/\\udcff\\x1b]0;x\\x07" in shell("check", dataset)[1]
    assert "\x1b[2J" not in terminal("runs", dataset)
    assert "\x1b]0" not in terminal("check", dataset)


def test_a_part_of_a_run_is_planned_and_undone(dataset: Place) -> None:
    before = contents(dataset)
    a_run(dataset, indices=(1, 2, 3))
    after = contents(dataset)
    status, out, _ = shell("undo", dataset, "k", "--indices", "2-3", "--plan")
    assert status == 0
    assert out.splitlines()[1].split("\t") == ["2", "000002_image.png", ""]
    assert out.splitlines()[-1].startswith("2 samples would be restored, 2 files put back")
    assert contents(dataset) == after
    assert [run["run_key"] for run in json.loads(shell("runs", dataset, "--json")[1])] == ["k"]
    status, out, _ = shell("undo", dataset, "k", "--indices", "2-3")
    assert status == 0
    assert out.startswith("A part of 'k' is undone: 2 samples restored, 2 files")
    part = {name for name in after if contents(dataset)[name] != before[name]}
    assert part == {"data/000001_image.png"}
    status, out, _ = shell("undo", dataset, "k", "--indices", "1", "--json")
    assert (status, json.loads(out)["indices"]) == (0, [1])
    assert contents(dataset) == before


def test_a_plan_tells_of_a_refusal(dataset: Place) -> None:
    a_run(dataset, indices=(1, 2))
    Files(dataset)["data/000002_image.png"] = b"other"
    status, out, _ = shell("undo", dataset, "k", "--plan", "--json")
    plan = json.loads(out)
    assert status == 1
    assert "changed since" in plan["refusal"]
    assert plan["changed"] == {"2": ["000002_image.png"]}
    assert plan["samples"] == {"1": ["000001_image.png"], "2": ["000002_image.png"]}
    status, out, _ = shell("undo", dataset, "k", "--plan", "--indices", "1,x")
    assert status == 2
    status, out, _ = shell("undo", dataset, "k", "--plan", "--indices", "5")
    assert status == 1
    assert "has nothing of sample 5" in out
    status, out, _ = shell("undo", dataset, "k", "--plan", "--indices", "1")
    assert status == 0


def test_the_differences_of_a_run_are_told_in_words(dataset: Place) -> None:
    stream = DataStream.read_write_underfolder(dataset, run_key="k")
    sample = stream[2].set_value("metadata", {"idx": 2, "note": "new"})
    image = sample["image"]().copy()
    image[0] += 10
    stream.set_output(2, sample.set_value("image", image).set_value("label", np.array([7])))
    stream.remove(4)
    stream.set_output(5, stream[5].set_value("label", np.array([5])))
    status, out, _ = shell("diff", dataset, "k", "--indices", "2")
    assert status == 0
    lines = {line.split("\t")[1]: line.split("\t")[2:] for line in out.splitlines()[1:-1]}
    assert lines == {
        "metadata": ["changed", "metadata.note: (none) → new"],
        "image": [
            "changed",
            "image: mean 2 → 4.5; image: a share of 0.25 of the pixels differs, by 2.5 on average "
            "of all",
        ],
        "label": ["changed", "label: 2 → 7"],
    }
    assert out.splitlines()[-1] == "1 sample changed by run 'k'."
    status, out, _ = shell("diff", dataset, "k", "--json")
    found = json.loads(out)
    assert [(one["idx"], one["outcome"]) for one in found[:2]] == [(2, "written"), (4, "removed")]
    assert {item["kind"] for item in found[1]["items"]} == {"removed"}
    kept = [item["before"]["path"] for item in found[1]["items"]]
    assert all(path.startswith(str(dataset)) for path in kept)
    assert is_address(dataset) or all(Path(path).is_file() for path in kept)
    status, _, err = shell("diff", dataset, "other")
    assert (status, "no run 'other'" in err) == (1, True)


def test_the_history_of_a_sample_is_told(dataset: Place) -> None:
    a_run(dataset, "a")
    shell("undo", dataset, "a", "--indices", "1")
    status, out, _ = shell("history", dataset, "1")
    lines = [line.split("\t") for line in out.splitlines()]
    assert status == 0
    assert [line[1:4] for line in lines[1:-1]] == [
        ["a", "written", "taken back"],
        ["undo:a", "written", "yes"],
    ]
    assert "mean 1 → 200" in lines[1][4]
    assert "mean 200 → 1" in lines[2][4]
    assert lines[-1] == ["2 changes known of sample 1."]
    status, out, _ = shell("history", dataset, "1", "--json")
    assert [event["counts"] for event in json.loads(out)] == [False, True]
    assert is_address(dataset) or "image changed" in terminal("history", dataset, "1")
    assert shell("history", dataset, "x")[0] == 2
    status, _, err = shell("history", dataset, "--", "-1")
    assert (status, "-1" in err) == (1, True)


def test_a_sample_is_restored(dataset: Place) -> None:
    before = contents(dataset)
    a_run(dataset, "a")
    after = contents(dataset)
    status, out, _ = shell("restore", dataset, "1", "--run", "a", "--key", "image")
    assert status == 0
    assert out.splitlines() == [
        "Sample 1 is restored: 1 file put back, 0 removed.",
        "To have it back as it was just now, undo 'restore:a'.",
    ]
    changed = {name for name in after if contents(dataset)[name] != after[name]}
    assert changed == {"data/000001_image.png"}
    assert "nothing was to be done" in shell("restore", dataset, "1", "--run", "a")[1]
    status, out, _ = shell("restore", dataset, "1", "--run", "a", "--after", "--json")
    assert (status, json.loads(out)["run_key"]) == (0, "restore:a#2")
    assert contents(dataset) == after != before
    status, _, err = shell("restore", dataset, "1", "--run", "b")
    assert (status, "Those that did: 'a'" in err) == (1, True)


def test_a_run_is_kept_and_named_until_it_is_released(dataset: Place) -> None:
    a_run(dataset)
    status, out, _ = shell("keep", dataset, "k", "--name", "golden")
    assert (status, out[:27]) == (0, "Run 'k' is kept as 'golden'")
    header, line, _ = shell("runs", dataset)[1].splitlines()
    assert dict(zip(header.split("\t"), line.split("\t"), strict=True))["kept"] == "golden"
    (run,) = json.loads(shell("runs", dataset, "--json")[1])
    assert (run["kept"], run["name"]) == (True, "golden")
    assert shell("prune", dataset, "--older-than", "0m")[1] == "0 runs removed; 0 B freed.\n"
    assert "2 samples changed by run 'golden'" in shell("diff", dataset, "golden")[1]
    status, out, _ = shell("keep", dataset, "golden", "--release", "--json")
    assert (status, json.loads(out)) == (0, {"run_key": "k", "kept": False, "name": None})
    status, out, error = shell("keep", dataset, "golden")
    assert (status, out) == (1, "")
    assert "no run 'golden'. Its runs: 'k'" in error


def test_runs_are_pruned_by_size_and_first_only_listed(dataset: Place) -> None:
    for key in ("a", "b", "c"):
        a_run(dataset, key)
    freed = json.loads(shell("runs", dataset, "--json")[1])[0]["undo_bytes"]
    options = (dataset, "--larger-than", f"{freed}B", "--keep-last", "1")
    planned = shell("prune", *options, "--plan")[1].splitlines()
    assert planned[-1].startswith("2 runs would be removed; ")
    assert shell("runs", dataset)[1].splitlines()[-1].startswith("3 runs; undo holds ")
    status, out, _ = shell("prune", *options)
    assert (status, out.splitlines()[:-1]) == (0, planned[:-1])
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        "run",
        "a",
        "b",
        out.splitlines()[-1],
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["prune", "x", "--keep-last", "3"],
        ["prune", "x", "--larger-than", "much"],
        ["prune", "x", "--larger-than", "-1"],
        ["prune", "x", "--older-than", "9" * 20 + "d"],
        ["prune", "x", "--older-than", "1d", "--keep-last", "-1"],
        ["keep", "x", "k", "--release", "--name", "n"],
    ],
)
def test_how_long_runs_are_kept_is_said_rightly_or_refused(options: list[str]) -> None:
    status, _, error = shell(*options)
    assert status == 2
    assert "Usage:" in error


def test_only_what_a_command_needs_is_loaded() -> None:
    code = (
        "import sys; from prefect_pipestream.cli import main; main(['browse', '/nowhere'])\n"
        "print([name for name in sys.modules if name.startswith('prefect_pipestream.cli.')])\n"
        "sys.exit('fastapi' in sys.modules)"  # what is no dataset is told before all of that
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "/nowhere" in done.stderr
    assert done.stdout.splitlines()[-1] == (
        "['prefect_pipestream.cli.output', 'prefect_pipestream.cli.browse_command']"
    )
