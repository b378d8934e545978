"""Samples written in other layouts: the counterparts of the sources that import them."""

from prefect_pipestream.exporting.exporter import Exporter, ExportError, ExportReport, export

__all__ = ["ExportError", "ExportReport", "Exporter", "export"]
