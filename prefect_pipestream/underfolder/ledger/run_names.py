"""Which run is meant where a key is asked for, and a name that a run was given is told.

This is the one place where names are resolved: whoever takes a run's key from a person has it
from here. A run's own key always counts first, so that no name hides a run.
"""

from prefect_pipestream.errors import RunKeyError
from prefect_pipestream.underfolder.format.layout import Folder, Layout
from prefect_pipestream.underfolder.format.run_key import check_run_key
from prefect_pipestream.underfolder.ledger.run import Run, given_name_in, runs_of


def key_meant(dataset: Folder | Layout, key_or_name: str) -> str:
    """The key of the run that is meant: what is given, if no run was given it as a name.

    Costs a look at one folder where a run has this key, else a small file a run.

    Args:
        dataset: The dataset's root, or its paths.
        key_or_name: A run's key, or the name that a run was given by `keep_run`.

    Raises:
        RunKeyError: If it can be neither, or is the name of several runs.
        DatasetError: If a link is in the way.
    """
    check_run_key(key_or_name)
    layout = Layout.of(dataset)
    if Run.of(layout, key_or_name).exists():
        return key_or_name
    named = named_run(layout, key_or_name)
    return key_or_name if named is None else named.key


def named_run(layout: Layout, name: str) -> Run | None:
    """The run that was given a name; None where there is none, or it is a run's key.

    Raises:
        RunKeyError: If several runs have it, as no dataset of this package's making has.
    """
    runs = [(run, run.facts()) for run in runs_of(layout)]
    if any(facts["run_key"] == name for _, facts in runs):
        return None
    found = [run for run, facts in runs if given_name_in(facts) == name]
    if len(found) > 1:
        keys = " and ".join(repr(run.key) for run in found)
        raise RunKeyError(
            f"{layout.root}: {name!r} is the name of several runs: {keys}. Ask for one by its key; "
            "`pipestream keep RUN --release` takes a name away."
        )
    return found[0] if found else None
