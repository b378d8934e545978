"""Where bytes are: questions to a file system, and verbs on files whose maker is not trusted.

- `asking`: is it there, and what is it? An error is never taken for "no".
- `files`: a file of a sample, links followed: its content, and the version last seen of it.
- `version`: what tells one content of a file from another: size and time, or its digest.
- `making`: new files of samples: written, copied or linked, never through one that exists.
- `untrusted`: private files of a dataset: no link is followed, no pipe is waited for.
- `removing`: whatever is there, and never what a link leads to.
- `creating`: a dataset in the making, beside its place.
- `lock`: locks that end with their holder; `clock`: how far modification times can be trusted.
"""
