"""The work inside one task run: from the streams that a task is given to its writes."""
