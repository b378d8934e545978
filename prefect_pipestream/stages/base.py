"""What a stage is, and the stages around others, by the name that they have in pipelime."""

from prefect_pipestream.sequences.stage import SampleStage as SampleStage
from prefect_pipestream.sequences.stage import StageCompose as StageCompose
from prefect_pipestream.sequences.stage import StageInput as StageInput
from prefect_pipestream.sequences.stage import StageLambda as StageLambda
from prefect_pipestream.stages.item_info import StageIdentity as StageIdentity
from prefect_pipestream.stages.item_info import StageTimer as StageTimer
