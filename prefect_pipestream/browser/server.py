"""The server: where it listens, and the address that it prints."""

import ipaddress
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import quote

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.storage.address import Place, is_address, place_of
from prefect_pipestream.storage.file_source import follow_links_within
from prefect_pipestream.underfolder.opening import open_dataset
from prefect_pipestream.views.addresses import BrowserAddress

TOKEN_VARIABLE = "PIPESTREAM_BROWSER_TOKEN"
"""The variable with the token; without it, each start makes a new one."""

_SHORTEST_TOKEN = 16  # characters


def serve(
    folder: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    is_read_only: bool = False,
    follows_links: bool = False,
    tell: Callable[[str], None],
) -> None:
    """Shows a dataset at an address of this machine, until it is interrupted.

    Args:
        folder: The dataset's root, or its address in an object store.
        host: The name or address to listen at; another than one of loopback shows the dataset to
            the network, to those who have the token.
        port: The port; 0 is any that is free.
        is_read_only: Whether every change is refused.
        follows_links: Whether items that are links out of the dataset are read.
        tell: Is given the address to open, once it is listened at.

    Raises:
        DatasetNotFoundError: If there is none.
        DatasetError: If it cannot be read, which is seen after the address was told.
        PipestreamError: If the address cannot be listened at, or the token is too short.
    """
    token = _token()
    place = open_dataset(place_of(folder)).folder  # refuses what is none
    if not (follows_links or is_address(place)):
        follow_links_within(str(place))
    with _listening(host, port) as listener:
        addresses = _addresses(host, listener)
        tell(f"{addresses[0]}/?token={quote(token)}")
        _answer(place, listener, addresses, token, is_read_only)


def _answer(
    place: Place,
    listener: socket.socket,
    addresses: tuple[str, ...],
    token: str,
    is_read_only: bool,
) -> None:
    """Answers to who connects; who came before all of this is loaded has waited."""
    import uvicorn

    from prefect_pipestream.browser.access import Access
    from prefect_pipestream.browser.app import create_app

    app = create_app(place, Access(addresses, token, is_read_only))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws="none", server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])


def _token() -> str:
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return secrets.token_urlsafe(24)
    if len(given) < _SHORTEST_TOKEN:
        raise PipestreamError(
            f"{TOKEN_VARIABLE} has {len(given)} characters: expected at least {_SHORTEST_TOKEN}, "
            "so that nobody guesses it. Leave it out for a token that is made anew."
        )
    return given


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # who comes before the server has started waits
    except (OSError, OverflowError) as error:
        raise PipestreamError(
            f"{host} port {port} cannot be listened at ({error}). Choose another one by --port; 0 "
            "takes any that is free."
        ) from error
    return listener


def _addresses(host: str, listener: socket.socket) -> tuple[str, ...]:
    """The addresses by which the server is known, the one to print first."""
    try:
        given = BrowserAddress.of_environment()
    except ValueError as error:
        raise PipestreamError(str(error)) from error
    port = listener.getsockname()[1]
    known = [] if given is None else [given.root]
    known += [BrowserAddress.of(f"http://{name}:{port}").root for name in _names(host, listener)]
    return tuple(dict.fromkeys(known))


def _names(host: str, listener: socket.socket) -> Iterator[str]:
    """By what names others may call the server, the best one first."""
    bound = ipaddress.ip_address(listener.getsockname()[0])
    if bound.is_unspecified:
        own = socket.gethostname()
        yield own
        with suppress(OSError):  # a machine need not know its own name
            for *_, address in socket.getaddrinfo(own, None):
                yield _literal(ipaddress.ip_address(address[0]))
        yield from ("127.0.0.1", "[::1]", "localhost")
        return
    yield _literal(bound)
    if bound.is_loopback:
        yield "localhost"
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return
    yield host


def _literal(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
