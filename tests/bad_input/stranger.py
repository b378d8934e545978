"""What another user, without any special right, gets from a dataset: run as a process.

`python -m tests.bad_input.stranger ACTION FOLDER` prints a line of JSON: what was found, or the
error. Modules are imported first: their files may be out of that user's reach.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from prefect_pipestream.items import BinaryItem, PngImageItem, YamlMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence

NOBODY = 65534


def read(folder: Path) -> list[Any]:
    """The keys of the samples that can be decoded, and the error of each item that cannot."""
    found: list[Any] = []
    for sample in DataStream.read_write_underfolder(folder):
        for key, item in sample.items():
            try:
                item()
            except Exception as error:  # noqa: BLE001 # whatever it is, the test looks at it
                found.append([key, type(error).__name__, str(error)])
    return found


def length(folder: Path) -> int:
    """The length of the sequence, which needs the folder's names only."""
    return len(SamplesSequence.from_underfolder(folder))


def write(folder: Path) -> str:
    """Changes a sample in place."""
    stream = DataStream.read_write_underfolder(folder)
    stream.set_output(0, stream[0].set_value("image", np.zeros((2, 2), np.uint8)))
    return "written"


def write_new(folder: Path) -> str:
    """Makes a new dataset below the folder."""
    stream = DataStream.create_new_underfolder(folder / "new")
    stream.set_output(0, Sample({"blob": BinaryItem(b"x")}))
    return "written"


def main() -> None:
    """Does one of the above as nobody."""
    action, folder = globals()[sys.argv[1]], Path(sys.argv[2])
    own = Path(sys.argv[3])
    PngImageItem(np.zeros((2, 2), np.uint8)).serialize(own / "a.png")
    YamlMetadataItem({}).serialize(own / "a.yaml")
    PngImageItem(own / "a.png")(), YamlMetadataItem(own / "a.yaml")()
    DataStream.create_new_underfolder(own / "set").set_output(0, Sample({"a": BinaryItem(b"")}))
    warnings.simplefilter("ignore")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        answer = action(folder)
    except Exception as error:  # noqa: BLE001 # whatever it is, the test looks at it
        bases = [base.__name__ for base in type(error).__mro__]
        answer = {"error": bases, "message": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
