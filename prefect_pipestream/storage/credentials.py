"""How an object store is reached: by what a dataset is given, a profile, or the environment.

Whoever opens a dataset with credentials of its own notes them for its address (`use_options`),
where `open_store` finds them. They hold in this process, and travel with pickled stores to others.
Where there are none, it is as with the provider's own tools. For S3 that is: keys in the
environment; else the profile that ``AWS_PROFILE`` names, or the default one, by boto3; else the
role of the machine.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from prefect_pipestream.errors import DatasetError, MissingExtraError
from prefect_pipestream.storage.address import Address

_log = logging.getLogger(__name__)

_ASK_AGAIN_AFTER = timedelta(minutes=5)  # boto3 renews what ends within ten
_AWS_FILES = (
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
)
_ENDPOINTS = ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_ROLE_OF_MACHINE = ("169.254.169.254", "metadata.google.internal")
_ACCOUNT_KEYS = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_TOKEN")
_ACCOUNT_FILES = ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")


@dataclass(frozen=True)
class StoreOptions:
    """How a store is reached, where the environment is not to say it. It can be pickled.

    Attributes:
        config: What is said of the store, by obstore's names: `region`, `endpoint`, `account_name`.
        secrets: What it is entered with, by obstore's names: `access_key_id`, `secret_access_key`,
            `session_token`; `service_account_key`; `account_key`, `sas_key`, `client_secret`.
        client: What is said of connections, by obstore's names: `allow_invalid_certificates`.
        profile: A profile of AWS.
        role: The arguments of AWS' AssumeRole, if a role is to be assumed with the rest.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    role: Mapping[str, Any] = field(default_factory=dict)

    def revealed(self) -> dict[str, str]:
        """The secrets as they are."""
        return {name: secret.get_secret_value() for name, secret in self.secrets.items()}


class CredentialsError(DatasetError):
    """Credentials for an object store cannot be used as given; the message shows none of them."""


_noted: dict[Address, StoreOptions] = {}
_noting = threading.Lock()


def use_options(address: Address, options: StoreOptions) -> None:
    """Notes how what is below an address is reached, by all that is opened from now on."""
    with _noting:
        _noted[address] = options


def options_for(address: Address) -> StoreOptions | None:
    """How an address is reached, as noted for it or the closest one above it; None: not noted."""
    with _noting:
        above = address
        while above not in _noted:
            if above == above.bucket:
                return None
            above = Address(above.rpartition("/")[0])
        return _noted[above]


_is_left_out: ContextVar[bool] = ContextVar("_is_left_out", default=False)


@contextmanager
def leaving_out_credentials() -> Iterator[None]:
    """Leaves credentials out of what is pickled inside, as it goes to a disk."""
    token = _is_left_out.set(True)
    try:
        yield
    finally:
        _is_left_out.reset(token)


def to_be_pickled(options: StoreOptions | None) -> StoreOptions | None:
    """What goes into a pickle of how a store is reached; see `leaving_out_credentials`."""
    return None if _is_left_out.get() else options


def connection(address: Address, options: StoreOptions | None) -> dict[str, Any]:
    """The arguments by which obstore connects to a store.

    Args:
        address: The store's address.
        options: How it is reached. None: as the environment says.

    Raises:
        CredentialsError: If a profile cannot be read, or the environment gets in the way.
        MissingExtraError: If a profile is to be read, and boto3 is not installed.
    """
    connect = {"s3": _to_s3, "gs": _to_google, "az": _to_azure}[address.partition(":")[0]]
    return {name: value for name, value in connect(options or StoreOptions()).items() if value}


def likely_cause(said: str) -> str | None:
    """What is missing in the environment where a store cannot be asked, if that can be told.

    Args:
        said: What obstore says.
    """
    if "builder error" in said and "http://" in said:
        return "a server without TLS is asked only with AWS_ALLOW_HTTP=true"
    if any(server in said for server in _ROLE_OF_MACHINE):
        return "no credentials were found, and the machine has no role that lends them"
    return None


# -- S3, and what speaks like it -----------------------------------------------------------


def _to_s3(options: StoreOptions) -> dict[str, Any]:
    config, client = dict(options.config), dict(options.client)
    provider: Callable[[], Any] | None = None
    if options.secrets and not options.role:
        provider = _always(_s3_keys(options))
    elif _is_for_boto3(options):
        provider = _by_profile(options, config)
    if options.secrets or options.profile:
        config["skip_signature"] = False  # whatever the environment says
    if str(config.get("endpoint")).startswith("http:"):
        client["allow_http"] = True
    elif client:  # which take the place of what the environment says of connections
        client.setdefault("allow_http", _is_on("AWS_ALLOW_HTTP"))
    _refuse_what_cannot_be_sent(config, options)
    return {"config": config, "client_options": client, "credential_provider": provider}


def _refuse_what_cannot_be_sent(config: Mapping[str, Any], options: StoreOptions) -> None:
    """Checks what is part of each request, on which obstore's own library would panic.

    Raises:
        CredentialsError: If something of it can be no part of one.
    """
    variables = (*_ENDPOINTS, *_REGIONS, *(() if options.secrets else _KEYS))
    given = {f"The variable {name}": os.environ.get(name, "") for name in variables}
    given |= {f"{name!r} of the credentials": str(one) for name, one in config.items()}
    given |= {f"{name!r} of the credentials": one for name, one in options.revealed().items()}
    for what, value in given.items():
        if value != value.strip() or not value.isprintable():
            raise CredentialsError(
                f"{what} has a space or a line break at its beginning or end, or a character that "
                "cannot be printed: so would a file have that it was read from. Leave that out."
            )
        if value and what.endswith((*_ENDPOINTS, "'endpoint' of the credentials")):
            _refuse_no_endpoint(what, value)


def _refuse_no_endpoint(what: str, value: str) -> None:
    try:
        url = urlsplit(value)
        is_endpoint = url.port != 0 and url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError:
        is_endpoint = False
    if not is_endpoint or " " in value:
        raise CredentialsError(
            f"{what} is {value!r}: expected the address of a server, such as https://s3.host:9000, "
            "or with `http://` of one without TLS."
        )


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "on", "yes", "y")


def _always(credentials: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Credentials as obstore asks for them, so that none of the environment are mixed in."""
    return lambda: {**credentials, "expires_at": None}


def _s3_keys(options: StoreOptions) -> dict[str, Any]:
    keys = options.revealed()
    return {
        "access_key_id": keys["access_key_id"],
        "secret_access_key": keys["secret_access_key"],
        "token": keys.get("session_token"),
    }


def _is_for_boto3(options: StoreOptions) -> bool:
    """Whether boto3 is to find credentials.

    Raises:
        MissingExtraError: If it has to, and is not installed.
    """
    if options.profile is None and not options.role:
        if os.environ.get("AWS_ACCESS_KEY_ID") or _is_on("AWS_SKIP_SIGNATURE"):
            return False
        if not os.environ.get("AWS_PROFILE"):
            return _are_files_read()
    if not _is_installed():
        asked = "the role to assume" if options.role else "the profile of AWS"
        name = options.role.get("RoleArn") or options.profile or os.environ.get("AWS_PROFILE")
        raise MissingExtraError(
            f"To use {asked} {name!r} boto3 is needed. Install it by "
            "`pip install 'prefect-pipestream[aws]'`, or give keys."
        )
    return True


def _is_installed() -> bool:
    try:
        import boto3  # noqa: F401 - it is what is looked for
    except ImportError:
        return False
    return True


def _are_files_read() -> bool:
    found = [os.path.expanduser(os.environ.get(name) or path) for name, path in _AWS_FILES]
    there = [path for path in found if os.path.exists(path)]
    if there and not _is_installed():
        _warn_once(there[0])
        return False
    return bool(there)


@cache
def _warn_once(path: str) -> None:
    _log.warning(
        "%s is there, but is not read: it needs boto3. Install it by "
        "`pip install 'prefect-pipestream[aws]'`.",
        path,
    )


def _by_profile(options: StoreOptions, config: dict[str, Any]) -> Callable[[], Any] | None:
    """What asks boto3 for credentials; the profile's region and endpoint go into the config.

    None: it has none, and none were asked for by name.

    Raises:
        CredentialsError: If it cannot find those that were.
    """
    import botocore.session
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = botocore.session.Session(profile=options.profile)
        if options.secrets:
            keys = _s3_keys(options)
            session.set_credentials(*keys.values())
        is_needed = options.profile or options.role or os.environ.get("AWS_PROFILE")
        _configure(config, session)
        if session.get_credentials() is None:
            if is_needed:
                raise CredentialsError(f"{_named(options)} has no credentials.")
            return None
        provider = _provider(session, options.role, config)
        provider()  # fails here, where it can be said why, rather than within a request
    except (BotoCoreError, ClientError) as error:
        raise CredentialsError(f"{_named(options)} cannot be used: {error}") from error
    return provider


def _named(options: StoreOptions) -> str:
    if options.role:
        return f"The role {options.role['RoleArn']!r}"
    name = options.profile or os.environ.get("AWS_PROFILE") or "default"
    return f"The profile {name!r} of AWS"


def _configure(config: dict[str, Any], session: Any) -> None:
    """Adds a profile's region and endpoint, where neither the dataset nor the environment has."""
    from botocore.configprovider import ConfiguredEndpointProvider

    region = session.get_config_variable("region")
    if region and not os.environ.get("AWS_REGION"):
        config.setdefault("region", region)
    if "endpoint" in config or any(map(os.environ.get, _ENDPOINTS)):
        return
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return
    endpoint = ConfiguredEndpointProvider(
        session.full_config, session.get_scoped_config(), "s3"
    ).provide()
    if endpoint:
        config["endpoint"] = endpoint


def _provider(
    session: Any, role: Mapping[str, Any], config: Mapping[str, Any]
) -> Callable[[], Any]:
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider, StsCredentialProvider

    # Without their own region: the config has it.
    if not role:
        return Boto3CredentialProvider(session, ttl=_ASK_AGAIN_AFTER).__call__
    entered = boto3.Session(botocore_session=session, region_name=config.get("region"))
    return StsCredentialProvider(entered, **role).__call__


# -- Google and Azure ------------------------------------------------------------------------


def _to_google(options: StoreOptions) -> dict[str, Any]:
    if options.secrets:
        _refuse_beside(_ACCOUNT_FILES)
    return {"config": {**options.config, **options.revealed()}, "client_options": options.client}


def _to_azure(options: StoreOptions) -> dict[str, Any]:
    config, secrets, client = dict(options.config), options.revealed(), dict(options.client)
    provider = None
    if "account_key" in secrets:
        provider = _always({"access_key": secrets.pop("account_key")})
    elif "sas_key" in secrets:
        provider = _always({"sas_token": secrets.pop("sas_key")})
    elif secrets:
        _refuse_beside(_ACCOUNT_KEYS)
    if str(config.get("endpoint")).startswith("http:"):
        client["allow_http"] = True
    return {
        "config": {**config, **secrets},
        "client_options": client,
        "credential_provider": provider,
    }


def _refuse_beside(names: tuple[str, ...]) -> None:
    """Checks that the environment has nothing that would be taken instead of what is given.

    Raises:
        CredentialsError: If it has.
    """
    found = [name for name in names if os.environ.get(name)]
    if found:
        raise CredentialsError(
            f"The dataset has credentials of its own, and the environment others that would be "
            f"used in their place: unset {', '.join(found)}."
        )
