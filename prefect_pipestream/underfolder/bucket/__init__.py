"""A dataset in an object store: the same layout and promises, by a log of numbered entries."""
