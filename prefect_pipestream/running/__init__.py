"""How a run over the samples of a dataset works: behind `tasks`, `process` and the flows."""
