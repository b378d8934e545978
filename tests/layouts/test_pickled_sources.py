"""Sources on their way to other processes: without what they have read."""

import pickle
from pathlib import Path

import pytest

from prefect_pipestream.exporting import export
from prefect_pipestream.flows.importing import source_of
from prefect_pipestream.layouts import LayoutKind
from prefect_pipestream.sequences import SamplesSequence
from tests.layouts.photos import all_values, needs_datasets
from tests.layouts.test_all_kinds import KINDS, SAMPLES, sample_of, source_in


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_pickled_without_what_it_has_read(kind: LayoutKind, tmp_path: Path) -> None:
    needs_datasets(kind)
    samples = SamplesSequence.from_list([sample_of(tmp_path, idx) for idx in range(SAMPLES)])
    export(samples, kind, tmp_path / "out")
    source = source_of(kind, source_in(tmp_path / "out", kind), {}).knowing({"dog": 1})
    as_made = len(pickle.dumps(source))
    found = all_values(source)
    data = pickle.dumps(source)
    assert len(data) == as_made
    assert all_values(pickle.loads(data)) == found
