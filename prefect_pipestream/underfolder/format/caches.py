"""Where what can be made anew is kept: in the dataset, or in a folder of the user's."""

import hashlib
import os

from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.asking import is_folder, is_link
from prefect_pipestream.underfolder.format.layout import Layout

CACHE_VARIABLE = "PIPESTREAM_CACHE"
"""The variable that names the folder for the caches of datasets in which none are kept."""


def place_for_caches(dataset: Layout | Address) -> Layout:
    """The layout below whose private folder caches of a dataset are kept: mostly its own.

    Of a dataset in a bucket, or that this user cannot write, it is one in a cache folder: in that
    of the variable ``PIPESTREAM_CACHE``, else in ``prefect-pipestream`` below ``XDG_CACHE_HOME`` or
    ``~/.cache``.

    Raises:
        OSError: If the dataset could not be asked for.
    """
    if isinstance(dataset, Address):
        root = str(dataset)
    elif _is_writable(dataset):
        return dataset
    else:
        root = os.path.realpath(dataset.root)
    digest = hashlib.blake2b(os.fsencode(root), digest_size=8).hexdigest()
    return Layout(os.path.join(_folder_of_user(), digest))


def _is_writable(layout: Layout) -> bool:
    private = layout.private
    if is_link(private):
        return False
    folder = private if is_folder(private) else layout.root
    return os.access(folder, os.W_OK | os.X_OK)


def _folder_of_user() -> str:
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return os.path.abspath(os.path.expanduser(given))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # as its specification says
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "prefect-pipestream")
