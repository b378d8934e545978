"""Text files of unknown origin that name paths."""

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.storage.file_source import FileSource


def text_of(path: str) -> str:
    """Returns the text of a file.

    Raises:
        DecodeError: If it is not there, cannot be read, or is not UTF-8.
    """
    try:
        return FileSource(path).read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DecodeError(f"{path}: there is no such file. Restore it.") from error
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"{path}: is no text in UTF-8 (byte {error.start}). Save it as such."
        ) from error
