"""The format: names, paths, and which files each sample has."""
