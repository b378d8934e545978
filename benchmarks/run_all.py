"""Runs the benchmarks one after the other, and prints one page of their figures, as Markdown.

    python benchmarks/run_all.py > page.md            # small sizes: some ten minutes
    python benchmarks/run_all.py --full > page.md     # those that the figures are promised for
    python benchmarks/run_all.py --only bench_flow.py bench_parallel.py

What a script prints goes to the standard error, as it comes. One that cannot run says why. Ctrl-C
ends the run, and the page has what was done until then.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from _report import KEPT_IN, cores, temporary_folder

HERE = Path(__file__).resolve().parent
PACKAGES = ("prefect", "numpy", "pillow", "imageio", "imagecodecs", "joblib")

#: By script, the options of a short run. Without any, a script takes the sizes that the project
#: promises its figures for.
SMALL = {
    "bench_parallel.py": "--png 40 --jpeg 150 --thumbnails 800 --repeats 1",
    "bench_latency.py": "--samples 200 --samples-a-worker 50 --workers 0 4 16 --repeats 1",
    "bench_flow.py": "--maps 100 --thumbnails 1000 --photographs 40 --photographs-jpeg 150",
    "bench_data_stream.py": "--samples 1000 --rounds 300 --reference-rounds 10 --large 10000",
    "bench_index.py": "--samples 10000 --memory-samples 30000",
    "bench_where.py": "--samples 5000",
    "bench_build.py": "--samples 500 --repeats 1",
    "bench_layouts.py": "--photos 1000 --images 1000 --objects 5000 --repeats 1",
    "bench_workers.py": "--thumbnails 300 --photographs 20",
    "bench_import.py": "--repeats 3",
    "bench_codecs.py": "--sizes 28",
    "bench_calls.py": "--samples 500 --traced 200 --rounds 1",
    "bench_million.py": "--sizes 1000",
    "bench_objects.py": "--samples 200 --pauses 0.02",
    "bench_objects_dask.py": "--samples 1500",
    "bench_commits.py": "--photographs 40 --thumbnails 500",
    "bench_limits.py": "--photographs 20 --thumbnails 500 --rounds 1",
    "bench_gate.py": "--rounds 1",
    "bench_screens.py": "--samples 5000",
    "bench_browser.py": "--samples 2000",
    "bench_ledger.py": "--samples 20000 --repeats 1",
    "bench_records.py": "--samples 1600 --repeats 2",
    "bench_reports.py": "--photographs 40 --thumbnails 1000 --repeats 1",
    "faults.py": "--most 200",
}


@dataclass
class Done:
    """What became of a script.

    Attributes:
        name: The script.
        options: What it was told.
        entries: Its titles, figures, ratios and remarks, in their order; see `_report.py`.
        seconds: How long it took.
        load: The load of the machine as it began: processes that ran, on average of a minute.
        failure: Why it did not come to its end; None if it did.
    """

    name: str
    options: list[str]
    entries: list[dict[str, Any]]
    seconds: float
    load: float
    failure: str | None


def scripts() -> list[str]:
    """The scripts, in the order of `SMALL`, and then those that it does not know."""
    found = {path.name for path in HERE.glob("bench_*.py")} | {"faults.py"}
    return [*(name for name in SMALL if name in found), *sorted(found - SMALL.keys())]


def run(name: str, options: list[str], timeout: float) -> Done:
    """Run a script, and collect its figures."""
    with tempfile.TemporaryDirectory() as parent:
        kept = Path(parent) / "figures.jsonl"
        kept.touch()
        load, begin = os.getloadavg()[0], time.perf_counter()
        failure = _run(name, options, timeout, kept)
        seconds = time.perf_counter() - begin
        entries = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    return Done(name, options, entries, seconds, load, failure)


def _run(name: str, options: list[str], timeout: float, kept: Path) -> str | None:
    """Run a script; why it did not come to its end, or None."""
    environment = {
        **os.environ,
        KEPT_IN: str(kept),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        # With byte code: processes that compile the package anew would be slower than users see.
        "PYTHONDONTWRITEBYTECODE": "",
    }
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        try:
            done = subprocess.run(
                [sys.executable, str(HERE / name), *options],
                stdout=sys.stderr,
                stderr=said,
                env=environment,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it took over {timeout:,.0f} s"
        said.seek(0)
        lines = [line.strip() for line in said if line.strip()]
    if done.returncode == 0:
        return None
    print("\n".join(lines), file=sys.stderr)
    return lines[-1] if lines else f"it ended with {done.returncode}"


# -- the machine ---------------------------------------------------------------------------


def facts(folder: Path) -> dict[str, str]:
    """What the figures depend on: the machine, the system, and the versions of libraries."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": f"{cores()} for this process, of {os.cpu_count()}",
        "memory": f"{memory / 2**30:.1f} GiB",
        "temporary folder is on": _file_system(folder),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _commit() -> str:
    """The commit of the checkout, and whether it is as it was committed."""
    asked = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "not known"


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """The kind of the file system of a folder: that of the longest mount point above it."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "not known"
    kinds = {line.split()[1]: line.split()[2] for line in mounts.read_text().splitlines()}
    above = [point for point in kinds if folder.resolve().is_relative_to(point)]
    return kinds[max(above, key=len)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# -- the page ------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)]


def promises(runs: list[Done], is_full: bool) -> list[str]:
    """The figures of which is said what they are to be."""
    rows = [
        [done.name, f"{subject}: {entry['name']}", f"{entry['shown']} {entry['unit']}"]
        for done in runs
        for subject, entry in _by_subject(done)
        if "(at " in entry.get("unit", "")
    ]
    if not rows:
        return []
    missed = sum("MISSED" in row[-1] for row in rows)
    said = f"{len(rows) - missed} of {len(rows)} are met."
    if not is_full:
        said += " They are promised for other sizes: at small ones what is fixed weighs more."
    return ["", "## What is promised", "", said, *table(["script", "figure", "is"], rows)]


def _by_subject(done: Done) -> list[tuple[str, dict[str, Any]]]:
    """The figures, each with the title above it."""
    subject, found = "", []
    for entry in done.entries:
        subject = entry.get("title", subject)
        if "name" in entry:
            found.append((subject, entry))
    return found


def section(done: Done) -> list[str]:
    """A script's figures, a table a title."""
    command = shlex.join(["python", f"benchmarks/{done.name}", *done.options])
    lines = ["", f"## {done.name}", "", _first_line(done.name), ""]
    lines.append(f"`{command}`: {done.seconds:,.0f} s, at a load of {done.load:.1f} before it")
    rows: list[list[str]] = []

    def put_rows() -> None:
        if rows:
            lines.extend(table(["", "", ""], rows))
            rows.clear()

    for entry in done.entries:
        if "name" in entry:
            rows.append([entry["name"], entry["shown"], entry["unit"]])
            continue
        put_rows()
        lines += ["", f"**{entry['title']}**" if "title" in entry else entry["remark"]]
    put_rows()
    if done.failure is not None:
        lines += ["", f"It could not run to its end: {done.failure}"]
    return lines


def _first_line(name: str) -> str:
    said = ast.get_docstring(ast.parse((HERE / name).read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]


def page(runs: list[Done], known: dict[str, str], is_full: bool) -> str:
    """All of it."""
    sizes = "the sizes that figures are promised for" if is_full else "small sizes"
    lines = ["# Benchmarks", "", f"All on one machine, one after the other, with {sizes}."]
    lines += table(["", ""], [[name, value] for name, value in known.items()])
    failed = [done for done in runs if done.failure is not None]
    lines += ["", f"{len(runs) - len(failed)} of {len(runs)} scripts ran to their end."]
    lines += [f"- {done.name} did not: {done.failure}" for done in failed]
    lines += promises(runs, is_full)
    for done in runs:
        lines += section(done)
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--full", action="store_true", help="the promised sizes: hours")
    options.add_argument("--only", nargs="+", metavar="SCRIPT", choices=scripts())
    options.add_argument(
        "--timeout", type=float, help="seconds of a script; 900, or 4 h with --full"
    )
    options.add_argument("--temporary-folder", type=Path, help="where the datasets are made")
    given = options.parse_args()
    with temporary_folder(given.temporary_folder) as folder:
        known = facts(folder)
        runs: list[Done] = []
        with suppress(KeyboardInterrupt):
            for name in given.only or scripts():
                told = [] if given.full else shlex.split(SMALL.get(name, ""))
                if given.temporary_folder is not None:
                    told += ["--temporary-folder", str(given.temporary_folder)]
                print(f"\n== {name} {shlex.join(told)}", file=sys.stderr, flush=True)
                runs.append(run(name, told, given.timeout or (14_400 if given.full else 900)))
    print(page(runs, known, given.full), end="")
    return 1 if any(done.failure is not None for done in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
