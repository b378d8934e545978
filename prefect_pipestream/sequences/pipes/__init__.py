"""The pipes: what is done with samples. One module each, named as the pipe is."""
