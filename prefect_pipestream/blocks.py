"""The construction of a `DataStream`, as Prefect blocks.

A block names a dataset and how it is read and written, so that it can be saved, chosen from a
list in the Prefect UI and given to a flow or a task; `open` makes the stream.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Self

from prefect.blocks.core import Block
from prefect.client.schemas import BlockDocument
from pydantic import AfterValidator, ConfigDict, Field, HttpUrl, model_validator

from prefect_pipestream.credentials import (
    CredentialsField,
    refuse_to_save,
    use_credentials,
)
from prefect_pipestream.sequences import DataStream, build_pipe
from prefect_pipestream.storage.address import Place, PlaceField
from prefect_pipestream.views.addresses import BrowserAddress

Operation = str | dict[str, Any]
"""An operation on a sequence or a sample: "name", or {"name": arguments}."""

# The logo of Prefect's own block for local files. Prefect takes no `data:` address and no file for
# it, only http(s): a browser that cannot reach it shows the block's name in its place.
_LOGO = HttpUrl(
    "https://raw.githubusercontent.com/PrefectHQ/prefect/"
    "420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/filesystem.png"
)
_DOCUMENTATION = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")
_RELATIVE = (
    " A relative one begins at the folder in which the flow runs (a worker's). It may also be the "
    "address of an object store: s3://bucket/path."
)
_BrowserUrl = Annotated[  # a form's field that is emptied says ""
    str | None,
    AfterValidator(lambda text: BrowserAddress.of(text, "browser_url").root if text else None),
]
_BROWSER_URL = (
    "The address at which people reach the browser (`pipestream browse`) on this dataset, such as "
    "https://data.example.org: reports and reviews lead there. By default that of "
    "PIPESTREAM_BROWSER_URL, where a flow run's environment has it."
)
_CREDENTIALS = (
    "The credentials for an address of an object store: a saved block of prefect-aws, prefect-gcp "
    "or prefect-azure. By default those of the environment, a profile of AWS, or the machine."
)
_ZFILL = "How many digits the index in a new file's name is padded to."


class DataStreamBlock(Block, ABC):
    """What can be opened as a `DataStream`: the base of this package's blocks, and of yours."""

    @abstractmethod
    def open(self, run_key: str | None = None) -> DataStream:
        """Opens the stream.

        Args:
            run_key: The run that its writes belong to; by default one of the stream's own.
        """

    def open_to_plan(self, run_key: str | None = None) -> DataStream:
        """Opens the stream to plan a run; a block whose opening makes something overrides it.

        Args:
            run_key: As for `open`.
        """
        return self.open(run_key)


class DatasetBlock(DataStreamBlock, ABC):
    """A dataset at one place, which may be reached with credentials of its own.

    They hold in each process that the block is made, loaded or unpickled in.
    """

    # What a wrong field is given is not shown: it may stand beside a secret.
    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    folder: PlaceField
    credentials: CredentialsField = Field(default=None, repr=False, description=_CREDENTIALS)

    @property
    def place(self) -> Place:
        """Where the dataset is; what is opened there from now on is with its credentials.

        Raises:
            CredentialsError: If they are not for such a place, or lack something.
        """
        use_credentials(self.folder, self.credentials)
        return self.folder

    @model_validator(mode="after")
    def _use_credentials(self) -> Self:
        use_credentials(self.folder, self.credentials)
        return self

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        use_credentials(self.folder, self.credentials)

    def _to_block_document(self, *args: Any, **kwargs: Any) -> BlockDocument:
        refuse_to_save(self.credentials)
        return super()._to_block_document(*args, **kwargs)


class ReadWriteUnderfolder(DatasetBlock):
    """A dataset folder whose samples are read, changed and written back in place.

    Example:
        ```python
        from prefect_pipestream.blocks import ReadWriteUnderfolder

        dataset = ReadWriteUnderfolder.load("BLOCK_NAME")
        stream = dataset.open()
        sample = stream[0]
        stream.set_output(0, sample.set_value("image", 255 - sample["image"]()))
        ```
    """

    _block_type_name = "Read-Write Underfolder"
    _block_type_slug = "read-write-underfolder"
    _logo_url = _LOGO
    _documentation_url = _DOCUMENTATION

    folder: PlaceField = Field(
        description=f"The dataset folder, which holds the folder `data`.{_RELATIVE}"
    )
    must_exist: bool = Field(
        default=True,
        description="Whether a missing folder is an error; otherwise the dataset starts empty.",
    )
    zfill: int | None = Field(
        default=None,
        ge=0,
        description=_ZFILL + " By default files keep their names and new ones follow them.",
    )
    browser_url: _BrowserUrl = Field(default=None, description=_BROWSER_URL)

    def open(self, run_key: str | None = None) -> DataStream:
        """Opens the dataset for reading and writing.

        Raises:
            DatasetNotFoundError: If the folder is missing and must exist.
        """
        return DataStream.read_write_underfolder(
            self.place, must_exist=self.must_exist, zfill=self.zfill, run_key=run_key
        )


class CreateNewUnderfolder(DatasetBlock):
    """A new dataset folder that is written: an error if it exists, unless the same run made it.

    Example:
        ```python
        from prefect_pipestream.blocks import CreateNewUnderfolder

        dataset = CreateNewUnderfolder.load("BLOCK_NAME")
        stream = dataset.open()
        stream.set_output(0, sample)
        ```
    """

    _block_type_name = "Create New Underfolder"
    _block_type_slug = "create-new-underfolder"
    _logo_url = _LOGO
    _documentation_url = _DOCUMENTATION

    folder: PlaceField = Field(
        description=f"The dataset folder to create. It must not exist.{_RELATIVE}"
    )
    zfill: int = Field(default=6, ge=0, description=_ZFILL)
    browser_url: _BrowserUrl = Field(default=None, description=_BROWSER_URL)

    def open(self, run_key: str | None = None) -> DataStream:
        """Creates the dataset, to write only; it belongs to the run.

        Raises:
            DatasetExistsError: If the folder exists and was not created by this run.
        """
        return DataStream.create_new_underfolder(self.place, zfill=self.zfill, run_key=run_key)

    def open_to_plan(self, run_key: str | None = None) -> DataStream:
        """Opens the dataset to be, which is not created.

        Raises:
            DatasetExistsError: If the folder exists and was not created by this run.
        """
        output = {"folder": self.place, "zfill": self.zfill, "exists_ok": False}
        return DataStream(None, [{"to_underfolder": output}], run_key=run_key)


class OutputUnderfolder(DatasetBlock):
    """A dataset folder that is written only: created, or updated where it exists.

    Example:
        ```python
        from prefect_pipestream.blocks import OutputUnderfolder

        dataset = OutputUnderfolder.load("BLOCK_NAME")
        stream = dataset.open()
        stream.set_output(0, sample)
        ```
    """

    _block_type_name = "Output Underfolder"
    _block_type_slug = "output-underfolder"
    _logo_url = _LOGO
    _documentation_url = _DOCUMENTATION

    folder: PlaceField = Field(description=f"The dataset folder to write into.{_RELATIVE}")
    zfill: int = Field(default=6, ge=0, description=_ZFILL)
    browser_url: _BrowserUrl = Field(default=None, description=_BROWSER_URL)

    def open(self, run_key: str | None = None) -> DataStream:
        """Opens the dataset for writing."""
        return DataStream.create_output_stream(self.place, zfill=self.zfill, run_key=run_key)


class PipedDataStream(DataStreamBlock):
    """A stream from any source, through any operations, to any output.

    Example:
        ```python
        from prefect_pipestream.blocks import PipedDataStream

        images = PipedDataStream.load("BLOCK_NAME")
        stream = images.open()
        print(len(stream))
        ```
    """

    _block_type_name = "Piped Data Stream"
    _block_type_slug = "piped-data-stream"
    _logo_url = _LOGO
    _documentation_url = _DOCUMENTATION

    input: list[Operation] = Field(
        description=(
            "The operations that give the samples, a source first: "
            '`[{"from_images": {"folder": "photos"}}, {"slice": {"stop": 100}}]`.'
        )
    )
    output_pipe: list[Operation] = Field(
        description=(
            "The operations that each written sample passes: "
            '`[{"to_underfolder": {"folder": "dataset", "exists_ok": true}}]`.'
        )
    )
    browser_url: _BrowserUrl = Field(default=None, description=_BROWSER_URL)

    def open(self, run_key: str | None = None) -> DataStream:
        """Builds the sequence and opens the stream.

        Raises:
            PipeBuildingError: If an operation's name or an argument is wrong.
        """
        return DataStream(build_pipe(self.input), self.output_pipe, run_key=run_key)
