"""Credentials for object stores as Prefect keeps them: the blocks of prefect-aws, -gcp and -azure.

These packages are not needed here. A block is known by its class, or, as the API gives it, by its
fields; what they say is put into `StoreOptions`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from prefect.blocks.core import Block
from pydantic import (
    BaseModel,
    BeforeValidator,
    PlainSerializer,
    PrivateAttr,
    Secret,
    SecretStr,
    WithJsonSchema,
)

from prefect_pipestream.storage.address import Address, Place
from prefect_pipestream.storage.credentials import CredentialsError, StoreOptions, use_options

_Fields = Mapping[str, Any]


@dataclass(frozen=True)
class _Kind:
    """A class of credentials.

    Attributes:
        name: The class.
        package: Where it is from.
        slug: What its blocks' type is called by Prefect.
        scheme: Of the addresses that it is for.
        fields: What it says.
        options: What its fields say.
    """

    name: str
    package: str
    slug: str
    scheme: str
    fields: tuple[str, ...]
    options: Callable[[_Fields], StoreOptions]


class SavedCredentials(Block):
    """Credentials as the API gives them, whose own class is not needed to read them."""

    _fields: Secret[dict[str, Any]] = PrivateAttr(default=Secret({}))

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "SavedCredentials":
        """The credentials with some fields."""
        saved = cls()
        saved._fields = Secret(fields)
        return saved

    def said(self) -> dict[str, Any]:
        """What they say, by field."""
        return self._fields.get_secret_value()


def use_credentials(place: Place, credentials: Block | None) -> None:
    """Lets a dataset be reached with its credentials, by all that is opened from now on.

    Args:
        place: Where it is.
        credentials: A block; None: it is reached as the environment says, or as was noted before.

    Raises:
        CredentialsError: If they are not for such a place, or lack something.
    """
    if credentials is None:
        return
    if not isinstance(place, Address):
        raise CredentialsError(
            f"{place}: credentials are for the address of an object store, such as s3://bucket/"
            "path, and this is a folder."
        )
    scheme = place.partition(":")[0]
    kind = _kind_of(credentials, scheme)
    if kind.scheme != scheme:
        raise CredentialsError(
            f"{place}: {kind.name} are for {kind.scheme}:// addresses, and this is none."
        )
    use_options(place, kind.options(_fields_of(credentials, kind)))


# -- which kind it is ----------------------------------------------------------------------


def _kind_of(credentials: Block, scheme: str) -> _Kind:
    if isinstance(credentials, SavedCredentials):
        said = {name for name, value in credentials.said().items() if _value(value)}
        own = said.difference(_OF_CLIENTS)
        found = [kind for kind in _KINDS if own.intersection(kind.fields)]
        by_place = [kind for kind in _KINDS if kind.scheme == scheme]
        return next(iter(found or by_place or _KINDS))
    return _kind_of_class(credentials)


def _kind_of_class(credentials: object) -> _Kind:
    classes = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(credentials).mro()}
    for kind in _KINDS:
        if (kind.package.replace("-", "_"), kind.name) in classes:
            return kind
    raise _unknown(type(credentials).__name__)


def _unknown(given: str) -> CredentialsError:
    known = ", ".join(f"{kind.name} of {kind.package}" for kind in _KINDS)
    return CredentialsError(
        f"credentials: {given} is not known here. Expected a saved block, one of: {known}."
    )


def _fields_of(credentials: Block, kind: _Kind) -> dict[str, Any]:
    """What is said of a kind's fields, revealed; nothing of those that are empty."""
    if isinstance(credentials, SavedCredentials):
        said = {name: credentials.said().get(name) for name in kind.fields}
    else:
        said = {name: getattr(credentials, name, None) for name in kind.fields}
    revealed = {name: _value(value) for name, value in said.items()}
    return {name: value for name, value in revealed.items() if value}


def _value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        return {name: some for name, some in value.items() if some is not None}
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


# -- what each says ------------------------------------------------------------------------


def _of_aws(fields: _Fields) -> StoreOptions:
    key, secret = fields.get("aws_access_key_id"), fields.get("aws_secret_access_key")
    return _s3_options("AwsCredentials", fields, key, secret)


def _of_minio(fields: _Fields) -> StoreOptions:
    key, secret = fields.get("minio_root_user"), fields.get("minio_root_password")
    return _s3_options("MinIOCredentials", fields, key, secret)


def _s3_options(name: str, fields: _Fields, key: str | None, secret: str | None) -> StoreOptions:
    if (key is None) != (secret is None):
        raise CredentialsError(f"{name}: an access key is an ID and a secret; one is missing.")
    client = fields.get("aws_client_parameters", {})
    config = {"region": fields.get("region_name"), "endpoint": client.get("endpoint_url")}
    secrets = {
        "access_key_id": key,
        "secret_access_key": secret,
        "session_token": fields.get("aws_session_token") if key else None,
    }
    role = fields.get("assume_role_arn")
    session = {"RoleSessionName": "prefect-pipestream", **fields.get("assume_role_kwargs", {})}
    return StoreOptions(
        config={option: value for option, value in config.items() if value},
        secrets=_secret(secrets),
        client=_checks_of_servers(client),
        profile=fields.get("profile_name"),
        role={**session, "RoleArn": role} if role else {},
    )


def _checks_of_servers(client: _Fields) -> dict[str, Any]:
    verify = client.get("verify", True)
    if verify is False:
        return {"allow_invalid_certificates": True}
    path = client.get("verify_cert_path") or (None if verify is True else verify)
    return {} if path is None else {"root_certificate": _content_of(path)}


def _of_google(fields: _Fields) -> StoreOptions:
    key = fields.get("service_account_info")
    if isinstance(key, dict):
        key = json.dumps(key)
    elif path := fields.get("service_account_file"):
        key = _content_of(path).decode()
    return StoreOptions(secrets=_secret({"service_account_key": key}))


def _of_azure(fields: _Fields) -> StoreOptions:
    if text := fields.get("connection_string"):
        return _of_connection_string(text)
    names = ("client_id", "tenant_id", "client_secret")
    return StoreOptions(
        config=_account_at(str(fields.get("account_url", ""))),
        secrets=_secret({name: fields.get(name) for name in names}),
    )


def _of_connection_string(text: str) -> StoreOptions:
    parts = dict(part.partition("=")[::2] for part in text.split(";") if part.strip())
    if endpoint := parts.get("BlobEndpoint"):
        config = {**_account_at(endpoint), "endpoint": endpoint.rstrip("/")}
        if "AccountName" in parts:
            config["account_name"] = parts["AccountName"]
    elif account := parts.get("AccountName"):
        scheme = parts.get("DefaultEndpointsProtocol", "https")
        host = f"{account}.blob.{parts.get('EndpointSuffix', 'core.windows.net')}"
        config = {"account_name": account, "endpoint": f"{scheme}://{host}"}
    else:
        raise CredentialsError(
            "AzureBlobStorageCredentials: the connection string names no account: expected "
            "AccountName=…;AccountKey=…, or BlobEndpoint=…;SharedAccessSignature=…."
        )
    keys = {"account_key": "AccountKey", "sas_key": "SharedAccessSignature"}
    return StoreOptions(config, _secret({name: parts.get(part) for name, part in keys.items()}))


def _account_at(url: str) -> dict[str, str]:
    host = urlsplit(url).hostname
    if not host:
        raise CredentialsError(
            "AzureBlobStorageCredentials: expected a connection string, or an account URL such as "
            "https://ACCOUNT.blob.core.windows.net."
        )
    return {"account_name": host.partition(".")[0], "endpoint": url.rstrip("/")}


def _secret(values: Mapping[str, str | None]) -> dict[str, SecretStr]:
    return {name: SecretStr(value) for name, value in values.items() if value}


def _content_of(path: str | Path) -> bytes:
    """A file of this machine: who is given the credentials elsewhere need not have it."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise CredentialsError(
            f"credentials: {path} cannot be read here ({error.strerror})."
        ) from error


_OF_CLIENTS = ("region_name", "aws_client_parameters")
_KINDS = (
    _Kind(
        "AwsCredentials",
        "prefect-aws",
        "aws-credentials",
        "s3",
        (
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
            "profile_name",
            "assume_role_arn",
            "assume_role_kwargs",
            *_OF_CLIENTS,
        ),
        _of_aws,
    ),
    _Kind(
        "MinIOCredentials",
        "prefect-aws",
        "minio-credentials",
        "s3",
        ("minio_root_user", "minio_root_password", *_OF_CLIENTS),
        _of_minio,
    ),
    _Kind(
        "GcpCredentials",
        "prefect-gcp",
        "gcp-credentials",
        "gs",
        ("service_account_info", "service_account_file", "project"),
        _of_google,
    ),
    _Kind(
        "AzureBlobStorageCredentials",
        "prefect-azure",
        "azure-blob-storage-credentials",
        "az",
        ("connection_string", "account_url", "client_id", "tenant_id", "client_secret"),
        _of_azure,
    ),
)


# -- as a field of a block -----------------------------------------------------------------


def _checked(given: Any) -> Block | None:
    """What a field of credentials is given, as a block.

    Raises:
        CredentialsError: If it is none that is known.
    """
    if given is None or isinstance(given, SavedCredentials):
        return given
    if isinstance(given, Block):
        _kind_of_class(given)
        return given
    if not isinstance(given, dict):
        raise _unknown(f"a {type(given).__name__}")
    fields = {name: value for name, value in given.items() if not name.startswith("_")}
    slug = fields.pop("block_type_slug", None)
    known = {name for kind in _KINDS for name in kind.fields}
    if slug not in (None, *(kind.slug for kind in _KINDS)) or (fields and not known & set(fields)):
        raise _unknown(f"a block with {', '.join(sorted(fields)) or 'no fields'}")
    return SavedCredentials.of(fields)


def _referred_to(credentials: Block | None) -> Any:
    """Credentials as they are written anywhere: where they are saved, and never what they are."""
    if credentials is None:
        return None
    saved = credentials._block_document_id
    return "**********" if saved is None else {"$ref": {"block_document_id": str(saved)}}


def refuse_to_save(credentials: Block | None) -> None:
    """Checks that a block that is saved can refer to its credentials.

    Raises:
        CredentialsError: If these are not saved themselves.
    """
    if credentials is not None and credentials._block_document_id is None:
        raise CredentialsError(
            "A dataset's block is saved with a reference to its credentials, and these are not "
            'saved yet. Save them first: credentials.save("NAME").'
        )


CredentialsField = Annotated[
    Any,  # by a class of blocks, Prefect would have that registered with the one it is a field of
    BeforeValidator(_checked),
    PlainSerializer(_referred_to),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "null"},  # what a form has at first
                *(
                    {"type": "object", "title": kind.name, "block_type_slug": kind.slug}
                    for kind in _KINDS
                ),
            ]
        }
    ),
]
"""A block of credentials as a field of another: a form lets one be chosen that is saved."""
