"""The files that pages are made of, as the server was started with them."""

from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).parent / "page"
_INDEX = "index.html"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_KEPT = {"cache-control": "private, max-age=31536000, immutable"}


class PageFiles:
    """The files of `page/`: few and small ones, held in memory.

    The address of each has a digest of them all: a browser keeps what it once got, and asks anew
    where any of them is another one.
    """

    def __init__(self) -> None:
        found = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir())}
        index = found.pop(_INDEX).decode()
        digest = sha256()
        for name, content in found.items():
            digest.update(f"{name} {len(content)} ".encode() + content)
        self._digest = digest.hexdigest()[:16]
        self._files = {name: found[name] for name in found if Path(name).suffix in _MEDIA_TYPES}
        modules = (name for name in self._files if name.endswith(".js"))
        links = "".join(f'<link rel="modulepreload" href="/page/{name}">' for name in modules)
        index = index.replace("</head>", f"  {links}\n  </head>")
        self._index = index.replace('"/page/', f'"/page/{self._digest}/')

    async def index(self, request: Request) -> Response:
        """Answers with the document that all pages are made in."""
        return Response(self._index, media_type="text/html")

    async def file(self, request: Request) -> Response:
        """Answers with a file, which the document and its modules refer to."""
        name = request.path_params["name"]
        if request.path_params["digest"] != self._digest or name not in self._files:
            return Response(status_code=404)
        media_type = _MEDIA_TYPES[Path(name).suffix]
        return Response(self._files[name], media_type=media_type, headers=_KEPT)
