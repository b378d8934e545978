"""The stages that put items in the place of others, by the name that they have in pipelime."""

from prefect_pipestream.stages.encoding import StageReplaceItem as StageReplaceItem
from prefect_pipestream.stages.items import StageCopyItems as StageCopyItems
from prefect_pipestream.stages.items import StageSampleHash as StageSampleHash
from prefect_pipestream.stages.items import StageSetMetadata as StageSetMetadata
from prefect_pipestream.stages.items import StageShareItems as StageShareItems
