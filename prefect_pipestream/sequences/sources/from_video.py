"""Frames of a video, each as a sample."""

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import (
    DatasetError,
    DatasetNotFoundError,
    DecodeError,
    MissingExtraError,
)
from prefect_pipestream.items import PngImageItem
from prefect_pipestream.sequences.registry import source_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.storage.asking import is_file

# Up to here it is quicker to decode on than to seek to a key frame and decode from there.
_FRAMES_TO_SKIP = 16


@source_sequence
class FromVideo(SamplesSequence, title="from_video"):
    """Takes every frame of a video as a sample: RGB, uint8, H×W×3.

    The first access reads the file once to find the frames, without decoding them. Frames in
    order cost a decode each, others a decode from the key frame before.

    Raises:
        DatasetNotFoundError: If the file must exist and does not.
        DatasetError: If that could not be asked.
        MissingExtraError: If the extra `video` is not installed.
    """

    video: Path
    must_exist: bool = True
    image_key: str = "image"

    def model_post_init(self, context: Any) -> None:
        """Checks that the file is there, and what is needed to read it."""
        _import_av()
        if self.must_exist and not self._is_there():
            raise DatasetNotFoundError(f"there is no video file {self.video}.")

    @cached_property
    def _frames(self) -> "_Frames | None":
        return _Frames(self.video) if self._is_there() else None

    @DatasetError.explaining_questions()
    def _is_there(self) -> bool:
        return is_file(str(self.video))

    def size(self) -> int:
        """Returns the number of frames.

        Raises:
            DecodeError: If the file is not a video.
        """
        return 0 if self._frames is None else len(self._frames)

    def get_sample(self, idx: int) -> Sample:
        """Returns a sample with the frame, decoded.

        Raises:
            DecodeError: If the frame cannot be decoded.
        """
        assert self._frames is not None  # a missing file has no frames to ask for
        return Sample.of({self.image_key: PngImageItem(self._frames.read(idx))})


class _Frames:
    """The frames of one file by number. Threads take turns; a copy opens the file itself."""

    def __init__(self, path: Path) -> None:
        self._path = str(path.absolute())
        self._times = self._find_times()
        self._reset()

    def _reset(self) -> None:
        self._turn = threading.Lock()
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._next = -1  # the number of the frame that is decoded next

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_times": self._times}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return len(self._times)

    def _find_times(self) -> "array[int]":
        """The time of each frame, in order, in the stream's own unit."""
        with self._open() as container:
            stream = container.streams.video[0]
            times = [p.pts for p in container.demux(stream) if p.dts is not None or p.size]
        if any(time is None for time in times):  # as in some AVI files: only decoding tells
            with self._open() as container:
                times = [frame.pts for frame in self._decode(container)]
        if any(time is None for time in times):
            raise DecodeError(
                f"{self._path}: its frames have no times, so they cannot be numbered. Convert it, "
                "for example with `ffmpeg -i IN OUT.mp4`."
            )
        return array("q", sorted(set(times)))

    def read(self, idx: int) -> npt.NDArray[np.uint8]:
        """Decodes the frame: uint8, H×W×3."""
        with self._turn:
            if self._container is None or not 0 <= idx - self._next <= _FRAMES_TO_SKIP:
                self._seek(idx)
            for frame in self._decoded:
                self._next = bisect_left(self._times, frame.pts) + 1
                if self._next > idx:
                    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        raise DecodeError(f"{self._path}: frame {idx} cannot be decoded: the file is cut short.")

    def _seek(self, idx: int) -> None:
        if self._container is None:
            self._container = self._open()
        stream = self._container.streams.video[0]
        self._container.seek(self._times[idx], stream=stream)
        self._decoded = self._decode(self._container)
        self._next = idx

    def _open(self) -> Any:
        av = _import_av()
        try:
            container = av.open(self._path)
        except (av.error.FFmpegError, OSError) as err:
            raise DecodeError(f"{self._path}: this is not a video that can be read: {err}") from err
        if not container.streams.video:
            container.close()
            raise DecodeError(f"{self._path}: there are no pictures in this file.")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _decode(self, container: Any) -> Iterator[Any]:
        av = _import_av()
        try:
            yield from container.decode(video=0)
        except av.error.FFmpegError as err:
            raise DecodeError(
                f"{self._path}: the frame after {self._next - 1} is damaged: {err}"
            ) from err


def _import_av() -> Any:
    try:
        import av
    except ImportError as err:
        raise MissingExtraError(
            "from_video needs PyAV: `pip install prefect-pipestream[video]`."
        ) from err
    return av
