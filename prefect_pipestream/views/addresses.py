"""Where the browser (`pipestream browse`) shows a thing, for links to it."""

import os
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

URL_VARIABLE = "PIPESTREAM_BROWSER_URL"
"""The variable with the address at which people reach the browser."""

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class BrowserAddress:
    """The address of a browser, and those of its pages.

    Attributes:
        root: Such as ``https://data.example.org``.
    """

    root: str

    @classmethod
    def of(cls, text: str, given_as: str = URL_VARIABLE) -> "BrowserAddress":
        """Reads an address.

        Args:
            text: The address.
            given_as: The name of what has it, for the error.

        Raises:
            ValueError: If it is none that a page can be asked at.
        """
        parts = urlsplit(text)
        has_path = parts.path not in ("", "/")
        if parts.scheme not in _PORTS or not parts.hostname or has_path:
            raise ValueError(
                f"{given_as}={text!r}: expected an address without a path, such as "
                "https://data.example.org."
            )
        # As browsers write it: in small letters, and without the port that goes without saying.
        place = quote(parts.netloc.lower().removesuffix(f":{_PORTS[parts.scheme]}"), safe=":[]%")
        return cls(f"{parts.scheme}://{place}")

    @classmethod
    def of_environment(cls) -> "BrowserAddress | None":
        """What the variable says; None where it is not set.

        Raises:
            ValueError: If that is no address.
        """
        given = os.environ.get(URL_VARIABLE)
        return cls.of(given) if given else None

    def sample(self, idx: int) -> str:
        """The page of a sample."""
        return f"{self.root}/sample/{idx}"

    def run(self, run_key: str) -> str:
        """The page of a run."""
        return f"{self.root}/run?key={quote(run_key, safe='')}"

    def review(self, review_id: str) -> str:
        """The page of a review."""
        return f"{self.root}/reviews/{quote(review_id, safe='')}"
