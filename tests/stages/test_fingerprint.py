"""The fingerprint of a transform: the same for the same transform, and for no other."""

import functools
import subprocess
import sys

import numpy as np
import pytest

from prefect_pipestream.sequences import Sample, SampleStage
from prefect_pipestream.stages import (
    StageClipValues,
    StageCompose,
    StageInvert,
    StageLambda,
    StageResize,
    StageTimer,
    fingerprint,
    resolve_stage,
    sample_stage,
)


def all_differ(*transforms):
    prints = [fingerprint(one) for one in transforms]
    return len(set(prints)) == len(prints)


def keep(sample):
    return sample


def drop(sample):
    return None


def test_it_is_a_sha256():
    assert len(bytes.fromhex(fingerprint(StageInvert()))) == 32


def test_stages_differ_by_class_and_arguments():
    assert all_differ(
        StageInvert(),
        StageInvert(white=1),
        StageInvert(images=["a"]),
        StageClipValues(low=1),
        StageClipValues(high=1),
        StageTimer(StageInvert()),
        StageTimer(StageInvert(white=1)),
        StageCompose([StageInvert(), StageClipValues(low=1)]),
        StageCompose([StageClipValues(low=1), StageInvert()]),
    )


def test_it_does_not_matter_where_in_the_package_a_stage_is(monkeypatch):
    before = fingerprint(StageInvert())
    monkeypatch.setattr(StageInvert, "__module__", "prefect_pipestream.stages.elsewhere")
    assert fingerprint(StageInvert()) == before


def test_it_does_not_matter_how_a_stage_was_written():
    assert fingerprint(resolve_stage({"resize-images": {"size": ["max", 9]}})) == fingerprint(
        StageResize(size=("max", 9), interpolation="bilinear")
    )
    composed = [{"clip-values": {"low": 1, "high": 2}}, "invert"]
    turned = [{"clip-values": {"high": 2.0, "low": 1}}, "invert"]
    assert fingerprint(resolve_stage(composed)) == fingerprint(resolve_stage(turned))


def test_a_stage_that_has_run_keeps_its_fingerprint():
    timer = StageTimer("identity")
    before = fingerprint(timer)
    timer(Sample({}))
    assert fingerprint(timer) == before


def test_functions_differ_by_their_source():
    assert all_differ(StageLambda(keep), StageLambda(drop), keep, drop)
    assert fingerprint(StageLambda(keep)) == fingerprint(StageLambda(keep))


def test_lambdas_on_one_line_differ():
    # fmt: off
    one, two = lambda sample: sample, lambda sample: None
    pair = [lambda s: s.remove_keys("a"), lambda s: s.remove_keys("b")]
    outer = lambda s: (lambda t: t)  # noqa: E731
    # fmt: on
    assert all_differ(one, two, *pair, outer, outer(0))


def test_closures_defaults_and_partials_count():
    def adding(amount, kind=None):
        def add(sample, times=1):
            return sample, amount, kind

        return add

    def times(n):
        def repeat(sample, count=n):
            return sample

        return repeat

    assert fingerprint(adding(1)) == fingerprint(adding(1))
    assert all_differ(adding(1), adding(2), adding("1"), adding(np.arange(3)), adding({"a": {1}}))
    assert all_differ(adding(keep), adding(drop))
    assert fingerprint(adding(open)) == fingerprint(adding(open))
    assert all_differ(times(1), times(2))
    assert all_differ(functools.partial(keep, a=1), functools.partial(keep, a=2))


def test_a_decorated_function_differs_by_decorator_and_by_function():
    def twice(function):
        @functools.wraps(function)
        def wrapper(sample):
            return function(function(sample))

        return wrapper

    def once(function):
        @functools.wraps(function)
        def wrapper(sample):
            return function(sample)

        return wrapper

    assert all_differ(twice(keep), twice(drop), once(keep), keep)


def test_values_that_are_not_plain_count_by_their_class():
    class Model:
        def __init__(self, weight):
            self.weight = weight
            self.handle = object()

        def __call__(self, sample):
            return sample

    assert fingerprint(Model(1)) == fingerprint(Model(1))
    assert all_differ(Model(1), Model(2))
    assert all_differ(Model(1).__call__, Model(2).__call__)


def test_functions_that_call_each_other_end():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert fingerprint(even) == fingerprint(even)
    assert all_differ(even, odd)
    itself = []
    itself.append(itself)
    assert fingerprint(lambda sample: itself)


MODULE = """
from prefect_pipestream.sequences import SampleStage
from prefect_pipestream.stages import sample_stage

AMOUNT = 10
KINDS = {"b", "a", "c", "d"}

def helper(x):
    return x + 1

def function(sample):
    return helper(AMOUNT)

class Own(SampleStage):
    level: int = 1
    names: set[str] = {"x", "y", "z", "w"}

    def __call__(self, sample):
        return sample

@sample_stage
def decorated(sample, amount: int = 1):
    return sample

pair = [lambda s: {"a", "b", "c", "d"} and s, lambda s: s in {"a", "b", "c", "e"}]
closed = (lambda kinds: lambda s: kinds)(KINDS)
"""

SCRIPT = """
import importlib, sys
from prefect_pipestream.stages import StageLambda, fingerprint, StageInvert
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    sys.modules.pop("transforms", None)
    importlib.invalidate_caches()
    t = importlib.import_module("transforms")
    print(*map(fingerprint, [
        t.function, t.Own(), t.Own(level=2), t.decorated(), t.decorated(amount=2), *t.pair,
        t.closed, StageLambda(t.function), StageInvert(images=["a"]),
    ]))
"""


def prints_of(folder, sources, seed="0"):
    """The fingerprints of the transforms in each source, all made in another process."""
    for number, source in enumerate(sources):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "transforms.py").write_text(source)
    run = subprocess.run(
        [sys.executable, "-B", "-c", SCRIPT, *map(str, sorted(folder.iterdir()))],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split() for line in run.stdout.splitlines()]


def test_it_is_the_same_in_all_processes_and_with_all_hash_seeds(tmp_path):
    (prints,) = prints_of(tmp_path / "one", [MODULE])
    assert len(set(prints)) == len(prints) == 10
    assert prints_of(tmp_path / "elsewhere", [MODULE], seed="7") == [prints]


def test_it_changes_with_the_source_and_with_nothing_else(tmp_path):
    function, own, decorated, rest = {0, 8}, {1, 2}, {3, 4}, set()
    edits = [
        ("x + 1", "x + 2", function),  # in a function that `function` calls
        ("AMOUNT = 10", "AMOUNT = 11", function),  # a constant that it uses
        ("return helper(AMOUNT)", "return helper(AMOUNT) or None", function),
        ("level: int = 1", "level: int = 1  # the level", own),
        ("amount: int = 1):", "amount: int = 1):\n    sample = sample", decorated),
        ("import SampleStage", "import SampleStage\n\n\n# moved down", rest),
    ]
    sources = [MODULE, *(MODULE.replace(old, new, 1) for old, new, _ in edits)]
    original, *edited = prints_of(tmp_path / "sources", sources)
    for (old, _, expected), prints in zip(edits, edited, strict=True):
        changed = {n for n, (a, b) in enumerate(zip(original, prints, strict=True)) if a != b}
        assert changed == expected, old


def test_without_source_the_bytecode_counts():
    def made(source):
        namespace = {"__name__": "made"}
        exec(compile(source, "<made>", "exec"), namespace)
        return namespace["f"]

    assert all_differ(
        made("f = lambda s: s"),
        made("f = lambda s: None"),
        made("def f(s): return {'a', 'b'}"),
        made("def f(s): return {'a', 'c'}"),
        made("def f(s): return [x for x in s]"),
        made("def f(s): return [x or 1 for x in s]"),
    )
    assert fingerprint(made("f = lambda s: s")) == fingerprint(made("f = lambda s: s"))


def test_own_stages_differ_by_their_source_and_that_of_their_bases():
    def family(amount):
        class Base(SampleStage):
            def __call__(self, sample):
                return sample if amount else None

        class Child(Base):
            pass

        return Child

    assert fingerprint(family(1)()) == fingerprint(family(1)())
    assert all_differ(family(1)(), family(2)())


@pytest.mark.parametrize("value", [1, 2.5, "x", None, [1], {"a": 1}])
def test_arguments_of_decorated_functions_count(value):
    @sample_stage
    def change(sample, amount=0):
        return sample

    assert all_differ(change(), change(amount=value))
    assert fingerprint(change(amount=value)) == fingerprint(change(amount=value))
