"""The pipes: what is done with samples."""
