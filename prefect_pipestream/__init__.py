"""Atomic, exactly-once, undoable data streams over folders of samples, run by Prefect."""
