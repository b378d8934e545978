"""Reading a dataset's samples, and changing them: all of a commit, or nothing."""
