"""That each benchmark starts, and that the page of all of them knows it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
# What only a benchmark needs; and what the plain tests do without.
NEEDS = {
    "bench_browser.py": ["playwright"],
    "bench_records.py": ["msgspec"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_starts_and_says_what_it_is_told(script: str) -> None:
    for module in NEEDS.get(script, []):
        pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), "--help"],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--temporary-folder" in done.stdout


@pytest.fixture(scope="module")
def run_all() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("run_all", FOLDER / "run_all.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["run_all"] = module  # where dataclasses look for it
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def test_the_page_has_small_sizes_of_each_benchmark(run_all: ModuleType) -> None:
    assert sorted(run_all.SMALL) == [name for name in SCRIPTS if name != "run_all.py"]


def test_the_page_has_figures_as_tables_and_says_why_a_script_did_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("run_all.py", "_report.py"):
        (folder / name).write_text((FOLDER / name).read_text())
    (folder / "bench_flow.py").write_text(
        '"""What it measures."""\n'
        "from _report import figure, parser, ratio, remark, title\n"
        "parser(__doc__).parse_known_args()\n"
        "title('10 samples')\n"
        "figure('a loop', 1234.5, 's', 1)\n"
        "ratio('times faster', 3, at_least=2)\n"
        "remark('as of today')\n"
    )
    (folder / "bench_where.py").write_text('"""It cannot."""\nraise SystemExit("needs Chromium")\n')
    command = [sys.executable, str(folder / "run_all.py"), "--only"]
    done = subprocess.run(
        [*command, "bench_flow.py", "bench_where.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    page = done.stdout
    assert "| processor | " in page
    assert "1 of 2 scripts ran to their end." in page
    assert "| bench_flow.py | 10 samples: times faster | 3.00 ×  (at least 2: met) |" in page
    assert "What it measures." in page
    assert "**10 samples**\n\n|  |  |  |\n| --- | --- | --- |\n| a loop | 1,234.5 | s |" in page
    assert "as of today" in page
    assert "It could not run to its end: needs Chromium" in page
