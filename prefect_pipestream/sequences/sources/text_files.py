"""Files of unknown origin that say what samples there are, and what is in them."""

from prefect_pipestream.errors import DecodeError
from prefect_pipestream.storage.file_source import FileSource


def content_of(path: str) -> bytes:
    """Returns the content of a file.

    Raises:
        DecodeError: If it is not there, is no regular file, or cannot be read.
    """
    try:
        return FileSource(path).read()
    except FileNotFoundError as error:
        raise DecodeError(f"{path}: there is no such file. Restore it.") from error


def text_of(path: str) -> str:
    """Returns the text of a file.

    Raises:
        DecodeError: As `content_of`, or if it is not UTF-8.
    """
    try:
        return content_of(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"{path}: is no text in UTF-8 (byte {error.start}). Save it as such."
        ) from error
