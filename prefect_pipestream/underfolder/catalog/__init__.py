"""The catalog of a dataset: what its metadata says, of all samples, kept as columns."""
