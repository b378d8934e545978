"""The items of plain data, by the name that they have in pipelime."""

from prefect_pipestream.items.metadata import JsonMetadataItem as JsonMetadataItem
from prefect_pipestream.items.metadata import MetadataItem as MetadataItem
from prefect_pipestream.items.metadata import TomlMetadataItem as TomlMetadataItem
from prefect_pipestream.items.metadata import YamlMetadataItem as YamlMetadataItem
