"""The stage on the files of items, by the name that it has in pipelime."""

from prefect_pipestream.stages.items import StageForgetSource as StageForgetSource
