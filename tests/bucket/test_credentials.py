"""Credentials for a bucket: blocks of Prefect, profiles of AWS; none is shown anywhere."""

import logging
import os
import pickle
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH
from pydantic import Field, SecretStr, ValidationError

from prefect_pipestream.blocks import CreateNewUnderfolder, OutputUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.errors import DatasetError, DatasetWriteError, MissingExtraError
from prefect_pipestream.flows import undo_run, validate_dataset
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.items import JsonMetadataItem
from prefect_pipestream.sequences import DataStream, Sample, SamplesSequence
from prefect_pipestream.storage import store as stores
from prefect_pipestream.storage.address import Address
from prefect_pipestream.storage.credentials import (
    CredentialsError,
    StoreOptions,
    connection,
    options_for,
    use_options,
)
from prefect_pipestream.storage.store import Store, StoreError, open_store
from prefect_pipestream.underfolder import check, list_runs
from prefect_pipestream.underfolder import undo_run as undo_dataset
from prefect_pipestream.work.streams import opened
from tests.bucket import work
from tests.bucket.server import (
    ACCESS_KEY,
    HOST,
    READER_KEY,
    READER_SECRET,
    SECRET_KEY,
    Server,
    environment,
    new_root,
)
from tests.bucket.work import Working, incremented, put_around

ENVIRONMENT = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SKIP_SIGNATURE")
SECRET = "a-secret-that-nobody-sees"


@pytest.fixture
def root(closed_weed: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Address:
    """A dataset of two samples on a server that asks for keys; the environment has none."""
    for name in (*environment(""), *ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", HOST)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    root = new_root(closed_weed)
    use_options(Address.of(root.bucket), options_of(closed_weed))
    put_around(root, 2)
    stores._open.pop((os.getpid(), root))
    use_options(Address.of(root.bucket), StoreOptions())
    return root


def options_of(server: Server) -> StoreOptions:
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    secrets = {name: SecretStr(value) for name, value in keys.items()}
    return StoreOptions({"region": "us-east-1", "endpoint": server.url}, secrets)


def fields_of(server: Server, **others: Any) -> dict[str, Any]:
    """A block of prefect-aws, as the API gives it."""
    return {
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SECRET_KEY,
        "aws_client_parameters": {"endpoint_url": server.url, "use_ssl": True},
        "region_name": "us-east-1",
        **others,
    }


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with other keys."""
    for name, value in {**environment("http://127.0.0.1:1"), "AWS_SESSION_TOKEN": "x"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")


# -- what a block's credentials do ---------------------------------------------------------


@pytest.mark.usefixtures("wrong")
def test_a_dataset_is_opened_with_its_own_credentials_and_no_others(
    root: Address, closed_weed: Server
) -> None:
    stream = ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed)).open()

    stream.set_output(0, incremented(stream[0]))

    assert [sample["left"]() for sample in stream] == [1, 0]
    other = {**fields_of(closed_weed), "aws_secret_access_key": SECRET}
    with pytest.raises(StoreError) as error:
        ReadWriteUnderfolder(folder=root, credentials=other).open()
    assert "credentials" in str(error.value)
    assert SECRET not in repr(error.getrepr(showlocals=False))
    assert [sample["left"]() for sample in stream] == [1, 0]  # an open one keeps its own


def test_without_credentials_nobody_is_let_in(
    root: Address, wrong: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stores.PATIENCE, "1")  # the role of a machine is asked for again and again
    with pytest.raises(DatasetError):
        ReadWriteUnderfolder(folder=root).open()


def test_who_may_only_read_reads_and_is_told_that_nothing_can_be_written(
    root: Address, closed_weed: Server
) -> None:
    ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed)).open().set_output(
        0, Sample({"left": JsonMetadataItem(5)})
    )
    keys = {"aws_access_key_id": READER_KEY, "aws_secret_access_key": READER_SECRET}
    reader = ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed, **keys)).open()

    assert reader[0]["left"]() == 5
    (run,) = list_runs(root)
    assert check(root).ok
    refused = r"probe-\w+: could not be (created|written) \(AccessDenied"
    with pytest.raises(DatasetWriteError, match=refused):
        reader.set_output(0, incremented(reader[1]))
    with pytest.raises(DatasetWriteError, match=refused):
        undo_dataset(root, run.run_key)
    with pytest.raises(DatasetWriteError, match=refused):
        check(root, fix=True)
    assert [sample["left"]() for sample in reader] == [5, 0]


def test_credentials_that_are_given_anew_are_used(root: Address, closed_weed: Server) -> None:
    old = {**fields_of(closed_weed), "aws_secret_access_key": SECRET}
    with pytest.raises(StoreError):
        opened(ReadWriteUnderfolder(folder=root, credentials=old), "run")

    new = ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed))
    stream = opened(new, "run")

    assert len(stream) == 2
    assert opened(new, "run") is stream
    others = ReadWriteUnderfolder(folder=root, credentials=old)
    with pytest.raises(StoreError):
        opened(others, "run")


def test_datasets_of_one_bucket_are_told_apart() -> None:
    first, second, none = (Address.of(f"s3://bucket/{name}") for name in ("a", "b", "c"))
    for root, key in ((first, "one"), (second, "two")):
        keys = {"aws_access_key_id": key, "aws_secret_access_key": SECRET}
        ReadWriteUnderfolder(folder=root, credentials=keys)

    found = [open_store(root).options for root in (first, second, none, first / "below")]

    keys = [options and options.revealed()["access_key_id"] for options in found]
    assert keys == ["one", "two", None, "one"]
    assert open_store(first) is open_store(first)


def test_another_process_is_given_them_with_a_stream(root: Address, closed_weed: Server) -> None:
    block = ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed))
    stream = block.open()

    for sent in (lambda: stream, lambda: stream.part([0]), lambda: block):
        with Working(work.increment_first, sent()) as working:
            assert working.told() == "done"

    assert [sample["left"]() for sample in stream] == [3, 0]


def test_a_store_of_another_process_may_have_others(closed_weed: Server) -> None:
    root = Address.of("s3://bucket/sent")
    sent = pickle.dumps(Store(root, options_of(closed_weed)))
    assert options_for(root) is None

    store = pickle.loads(sent)

    assert store.options == options_of(closed_weed)
    assert open_store(root) is store


@pytest.mark.usefixtures("wrong", "prefect_api")
@pytest.mark.parametrize("options", [{}, {"sample_timeout": 60.0}, {"tasks_per": "sample"}])
def test_flows_use_them_wherever_samples_are_worked_on(
    root: Address, closed_weed: Server, options: dict[str, Any]
) -> None:
    block = ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed))

    report = process_samples(block, incremented, run_key="run", **options)

    assert (report.counts["written"], report.counts["failed"]) == (2, 0)
    validate_dataset(block, [])
    undo_run(block, "run")
    assert [sample["left"]() for sample in block.open()] == [0, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("wrong", "prefect_api")
@pytest.mark.filterwarnings("ignore")  # those of the cluster, as it ends
@pytest.mark.parametrize("tasks_per", ["chunk", "sample"])
def test_the_flow_uses_them_on_dask(root: Address, closed_weed: Server, tasks_per: Any) -> None:
    prefect_dask = pytest.importorskip("prefect_dask", reason="needs the extra [dask]")
    block = ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed))
    runner = prefect_dask.DaskTaskRunner(
        cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    )

    report = process_samples.with_options(task_runner=runner)(
        block, incremented, run_key="run", tasks_per=tasks_per
    )

    assert (report.counts["written"], report.counts["failed"]) == (2, 0)


# -- blocks that are saved ------------------------------------------------------------------


class AwsCredentials(Block):
    """Stands for that of prefect-aws, whose fields it has, where that is not installed."""

    __module__ = "prefect_aws.credentials"
    _block_type_slug = "stands-for-aws-credentials"

    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: str | None = None
    region_name: str | None = None
    aws_client_parameters: dict[str, Any] = Field(default_factory=dict)


class Others(Block):
    """Credentials for something else."""

    token: SecretStr


def save_through_the_api(name: str, slug: str, data: dict[str, Any]) -> str:
    """Saves a block as the UI does, whose class need not be installed."""
    with get_client(sync_client=True) as client:
        kind = client.read_block_type_by_slug(slug)
        wanted = {"block_schemas": {"block_type_id": {"any_": [str(kind.id)]}}}
        schema = client._client.post("/block_schemas/filter", json=wanted).json()[0]
        document = BlockDocumentCreate(
            name=name, data=data, block_schema_id=schema["id"], block_type_id=kind.id
        )
        return str(client.create_block_document(document).id)


def shown_by_the_api() -> str:
    """What anybody sees there of blocks, flow runs, task runs, artifacts and logs."""
    asked = ("block_documents", "flow_runs", "task_runs", "artifacts", "logs", "variables")
    with get_client(sync_client=True) as client:
        return "".join(client._client.post(f"/{one}/filter", json={}).text for one in asked)


@pytest.mark.usefixtures("prefect_api", "wrong")
def test_a_block_that_is_saved_in_the_ui_is_loaded_with_its_credentials(
    root: Address, closed_weed: Server
) -> None:
    data = fields_of(closed_weed)
    saved = save_through_the_api("robot", "aws-credentials", data)
    ReadWriteUnderfolder(folder="/tmp").save("any", overwrite=True)  # registers it
    reference = {"$ref": {"block_document_id": saved}}
    save_through_the_api(
        "remote", "read-write-underfolder", {"folder": root, "credentials": reference}
    )

    block = ReadWriteUnderfolder.load("remote")

    assert len(block.open()) == 2
    assert block.model_dump()["credentials"] == reference
    block.save("again")
    assert len(ReadWriteUnderfolder.load("again").open()) == 2
    report = process_samples(block, incremented, run_key="run")
    assert report.counts["written"] == 2
    assert saved in shown_by_the_api()
    assert SECRET_KEY not in shown_by_the_api()


@pytest.mark.usefixtures("prefect_api", "wrong")
@pytest.mark.parametrize("kind", [OutputUnderfolder, CreateNewUnderfolder])
def test_a_block_that_is_saved_in_code_has_a_reference(
    root: Address, closed_weed: Server, kind: Any
) -> None:
    credentials = AwsCredentials(**fields_of(closed_weed))
    target = root / kind.__name__
    block = kind(folder=target, credentials=credentials)
    name = kind.__name__.lower()
    with pytest.raises(CredentialsError, match="not saved yet"):
        block.save(name)
    credentials.save(name)

    block.save(name)

    loaded = kind.load(name)
    stream = loaded.open("run")
    stream.set_output(0, ReadWriteUnderfolder(folder=root, credentials=credentials).open()[0])
    assert len(ReadWriteUnderfolder(folder=target, credentials=credentials).open()) == 1
    assert SECRET_KEY not in shown_by_the_api()


# -- what is shown ------------------------------------------------------------------------


@pytest.mark.usefixtures("prefect_api", "wrong")
def test_a_secret_is_shown_nowhere(
    root: Address, closed_weed: Server, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    block = ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed))
    report = process_samples(block, incremented, run_key="run")
    stream = block.open()
    store = open_store(root)

    said = [block, stream, report, store, options_for(root), store.options, block.credentials]
    shown = [text for one in said for text in (repr(one), str(one))]
    shown += [block.model_dump_json(), str(block.model_dump()), caplog.text, shown_by_the_api()]
    shown += [store.read(stat.key).data.decode() for stat in store.objects_in(".pipestream")]
    kept = Path(PREFECT_LOCAL_STORAGE_PATH.value())
    shown += [path.read_text("latin-1") for path in kept.rglob("*") if path.is_file()]

    assert [text for text in shown if SECRET_KEY in text] == []


def test_what_is_cached_on_the_disk_has_no_secret(
    root: Address, closed_weed: Server, tmp_path: Path
) -> None:
    ReadWriteUnderfolder(folder=root, credentials=fields_of(closed_weed))
    cached = SamplesSequence.from_underfolder(root).cache(tmp_path / "cache")

    assert [cached[0]["left"]() for _ in range(2)] == [0, 0]

    (kept,) = (tmp_path / "cache").iterdir()
    assert SECRET_KEY.encode() not in kept.read_bytes()
    again = SamplesSequence.from_underfolder(root).cache(
        tmp_path / "cache", reuse_cache=True, allow_pickle=True
    )
    assert again[0]["left"]() == 0


class _SendsTheTokenBack(BaseHTTPRequestHandler):
    """Answers as S3 does where a session has ended."""

    def do_GET(self) -> None:
        token = self.headers["x-amz-security-token"]
        body = f"<Error><Code>ExpiredToken</Code><Token-0>{token}</Token-0></Error>".encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_a_token_that_a_store_sends_back_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", HOST)
    root = Address.of("s3://bucket/expired")
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "key", "aws_session_token": SECRET}
    with ThreadingHTTPServer((HOST, 0), _SendsTheTokenBack) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = {"endpoint_url": f"http://{HOST}:{server.server_port}"}
        noted(root, {**keys, "aws_client_parameters": at})

        with pytest.raises(StoreError, match="ExpiredToken") as error:
            open_store(root).read("a")
        server.shutdown()

    shown = "".join(traceback.format_exception(error.value))
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("folder", "given", "said"),
    [
        ("s3://b/p", 5, "a int is not known"),
        ("s3://b/p", {"token": SECRET}, "a block with token is not known"),
        ("s3://b/p", {"block_type_slug": "github-credentials"}, "is not known"),
        ("s3://b/p", {"aws_secret_access_key": SECRET}, "one is missing"),
        ("gs://b/p", {"aws_secret_access_key": SECRET}, "AwsCredentials are for s3://"),
        ("s3://b/p", {"service_account_info": {"k": SECRET}}, "GcpCredentials are for gs://"),
        ("memory://b/p", {"minio_root_password": SECRET}, "MinIOCredentials are for s3://"),
        ("/a/folder", {"aws_secret_access_key": SECRET}, "this is a folder"),
        ("az://c/p", {"connection_string": f"AccountKey={SECRET}"}, "names no account"),
        ("az://c/p", {"tenant_id": SECRET}, "an account URL such as"),
        ("gs://b/p", {"service_account_file": "/none"}, "/none cannot be read"),
    ],
)
def test_what_is_wrong_with_credentials_is_told_without_them(
    folder: str, given: Any, said: str
) -> None:
    with pytest.raises(CredentialsError, match=said) as error:
        ReadWriteUnderfolder(folder=folder, credentials=given)

    assert SECRET not in str(error.getrepr(showlocals=False))
    assert isinstance(error.value, DatasetError)


def test_a_block_of_another_kind_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(CredentialsError, match="Others is not known here") as error:
        ReadWriteUnderfolder(folder="s3://b/p", credentials=Others(token=SecretStr(SECRET)))

    for name in ("AwsCredentials of prefect-aws", "GcpCredentials of prefect-gcp"):
        assert name in str(error.value)


def test_another_field_that_is_wrong_shows_no_secret() -> None:
    given = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET}
    for wrong in ({"folder": "s3://b/p", "must_exist": "perhaps"}, {}):
        with pytest.raises(ValidationError) as error:
            ReadWriteUnderfolder(credentials=given, **wrong)
        assert SECRET not in str(error.getrepr(showlocals=False))


# -- what each kind says ---------------------------------------------------------------------


def noted(folder: str, fields: dict[str, Any]) -> StoreOptions:
    ReadWriteUnderfolder(folder=folder, credentials=fields)
    options = options_for(Address.of(folder))
    assert options is not None
    return options


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ACCESS_KEY_ID", f"{SECRET}\n", "AWS_ACCESS_KEY_ID has a space or a line break"),
        ("AWS_SECRET_ACCESS_KEY", f" {SECRET}", "AWS_SECRET_ACCESS_KEY has a space"),
        ("AWS_SESSION_TOKEN", f"{SECRET}\r", "AWS_SESSION_TOKEN has a space"),
        ("AWS_REGION", "us-east-1\n", "AWS_REGION has a space or a line break"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "'127.0.0.1:9000': expected the address"),
        ("AWS_ENDPOINT_URL", "minio", "'minio': expected the address"),
        ("AWS_ENDPOINT_URL", "http://", "expected the address"),
        ("AWS_ENDPOINT_URL", "http://minio:port", "expected the address"),
        ("AWS_ENDPOINT_URL", "http://minio:99999", "expected the address"),
        ("AWS_ENDPOINT", "http://minio/a b", "expected the address"),
        ("AWS_ENDPOINT_URL_S3", "s3://minio", "expected the address"),
        ("AWS_ALLOW_HTTP", "no", "a server without TLS is asked only with AWS_ALLOW_HTTP=true"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "error sending request: Connection refused"),
        (stores.PATIENCE, "soon", "'soon': expected a number of seconds"),
        (stores.PATIENCE, "-1", "'-1': expected a number of seconds"),
        (stores.PATIENCE, "nan", "expected a number of seconds"),
    ],
)
def test_what_is_wrong_with_the_environment_is_told(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for usual, as_usual in environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(usual, as_usual)
    monkeypatch.setenv(stores.PATIENCE, "1")
    monkeypatch.setenv(name, value)
    address = Address.of(f"s3://bucket/wrong-{name}-{hash(value)}")

    with pytest.raises(DatasetError, match=said) as error:
        open_store(address).read("a")

    assert SECRET not in str(error.getrepr(showlocals=False))


def test_what_is_wrong_with_what_a_block_says_is_told() -> None:
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": SecretStr(f"{SECRET}\n")}
    noted("s3://b/8", keys)
    with pytest.raises(CredentialsError, match="'secret_access_key' of the credentials has a"):
        open_store(Address.of("s3://b/8")).read("a")
    noted("s3://b/9", {"aws_client_parameters": {"endpoint_url": "minio:9000"}})
    with pytest.raises(CredentialsError, match="'minio:9000': expected the address"):
        open_store(Address.of("s3://b/9")).read("a")


def test_a_panic_of_the_library_is_an_error_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment("http://mi<nio").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="could not be read"):
        open_store(Address.of("s3://bucket/panic")).read("a")


def test_what_aws_credentials_say(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"certificate")
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret"}

    said = noted("s3://b/1", {**keys, "aws_session_token": "token", "region_name": "eu-west-1"})
    assert said.config == {"region": "eu-west-1"}
    assert said.revealed() == {
        "access_key_id": "id",
        "secret_access_key": "secret",
        "session_token": "token",
    }
    said = noted("s3://b/2", {**keys, "aws_client_parameters": {"verify": False}})
    assert said.client == {"allow_invalid_certificates": True}
    trusting = {"verify_cert_path": str(tmp_path / "ca.pem"), "endpoint_url": "https://minio"}
    said = noted("s3://b/3", {**keys, "aws_client_parameters": trusting})
    assert (said.client, said.config) == (
        {"root_certificate": b"certificate"},
        {"endpoint": "https://minio"},
    )
    assert noted("s3://b/4", {"profile_name": "robot"}).profile == "robot"
    role = noted("s3://b/5", {"assume_role_arn": "arn", "assume_role_kwargs": {"ExternalId": "x"}})
    assert role.role["RoleArn"] == "arn"
    assert role.role["ExternalId"] == "x"
    assert noted("s3://b/6", {}) == StoreOptions()
    fields = {"minio_root_user": "id", "minio_root_password": "secret", "region_name": "r"}
    said = noted("s3://b/7", fields)
    assert said.revealed() == {"access_key_id": "id", "secret_access_key": "secret"}
    assert said.config == {"region": "r"}


def test_what_google_credentials_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.json").write_text('{"a": 1}')
    info = noted("gs://b/1", {"service_account_info": {"a": 1}, "project": "p"})
    file = noted("gs://b/2", {"service_account_file": str(tmp_path / "key.json")})
    assert info.revealed() == file.revealed() == {"service_account_key": '{"a": 1}'}
    assert noted("gs://b/3", {"project": "p"}) == StoreOptions()
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/another")
    with pytest.raises(CredentialsError, match="unset GOOGLE_SERVICE_ACCOUNT"):
        open_store(Address.of("gs://b/1")).read("a")


def test_what_azure_credentials_say(monkeypatch: pytest.MonkeyPatch) -> None:
    at = {"account_name": "acc", "endpoint": "https://acc.blob.core.windows.net"}
    text = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5==;"
    said = noted("az://c/1", {"connection_string": text})
    assert (said.config, said.revealed()) == (at, {"account_key": "a2V5=="})
    text = f"BlobEndpoint={at['endpoint']}/;SharedAccessSignature=sv=1&sig=x%3D"
    said = noted("az://c/2", {"connection_string": text})
    assert (said.config, said.revealed()) == (at, {"sas_key": "sv=1&sig=x%3D"})
    names = {"client_id": "i", "tenant_id": "t", "client_secret": "s"}
    said = noted("az://c/3", {"account_url": f"{at['endpoint']}/", **names})
    assert (said.config, said.revealed()) == (at, names)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    with pytest.raises(CredentialsError, match="unset AZURE_STORAGE_ACCOUNT_KEY"):
        open_store(Address.of("az://c/3")).read("a")
    url = noted("az://c/4", {"account_url": at["endpoint"]})
    assert (url.config, url.revealed()) == (at, {})


# -- profiles -------------------------------------------------------------------------------


@pytest.fixture
def profile(root: Address, closed_weed: Server) -> None:
    """The files of AWS with a profile of the server."""
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(
        f"[robot]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        "[wrong]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
    )
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(
        f"[profile robot]\nregion = us-east-1\nservices = weed\n"
        f"[profile wrong]\nregion = us-east-1\nendpoint_url = {closed_weed.url}\n"
        f"[profile empty]\nregion = eu-west-1\n"
        f"[services weed]\ns3 =\n  endpoint_url = {closed_weed.url}\n"
    )


def samples_at(root: Address) -> int:
    stores._open.pop((os.getpid(), root), None)
    return len(DataStream.read_write_underfolder(root))


@pytest.mark.usefixtures("profile")
def test_the_profile_of_the_environment_is_used(
    root: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "robot")
    assert samples_at(root) == 2
    monkeypatch.setenv("AWS_PROFILE", "wrong")
    with pytest.raises(StoreError):
        samples_at(root)
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(DatasetError, match="profile 'none'"):
        samples_at(root)
    monkeypatch.setenv("AWS_PROFILE", "empty")
    with pytest.raises(DatasetError, match="profile 'empty' of AWS has no credentials"):
        samples_at(root)


@pytest.mark.usefixtures("profile")
def test_keys_of_the_environment_go_before_its_profile(
    root: Address, closed_weed: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "wrong")
    for name, value in environment(closed_weed.url).items():
        monkeypatch.setenv(name, value)
    assert samples_at(root) == 2


@pytest.mark.usefixtures("profile", "wrong")
def test_the_profile_of_a_block_goes_before_the_environment(
    root: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "wrong")
    block = ReadWriteUnderfolder(folder=root, credentials={"profile_name": "robot"})
    assert len(block.open()) == 2


@pytest.mark.usefixtures("profile")
def test_the_default_profile_is_used_where_nothing_is_said(
    root: Address, closed_weed: Server
) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        path = Path(os.environ[name])
        path.write_text(
            path.read_text().replace("profile robot", "default").replace("robot", "default")
        )
    assert samples_at(root) == 2


@pytest.mark.usefixtures("profile")
def test_without_boto3_the_extra_is_named(
    root: Address, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")  # else the role of the machine is asked for
    assert connection(root, None) == {}
    monkeypatch.delenv("AWS_SKIP_SIGNATURE")
    assert connection(root, None) == {}
    assert "is not read" in caplog.text
    monkeypatch.setenv("AWS_PROFILE", "robot")
    with pytest.raises(MissingExtraError, match=r"'robot' boto3 .* 'prefect-pipestream\[aws\]'"):
        samples_at(root)


def test_a_role_is_assumed(moto: Server, root: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    address = Address.of("s3://bucket/role")
    role = {"assume_role_arn": "arn:aws:iam::123456789012:role/robot"}
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": SECRET}
    options = noted(address, {**keys, **role, "region_name": "us-east-1"})

    entered = connection(address, options)["credential_provider"]()

    assert entered["access_key_id"].startswith("ASIA")
    assert entered["token"]


# -- the real blocks, where they are installed ------------------------------------------------


@pytest.mark.usefixtures("prefect_api", "wrong")
def test_the_blocks_of_prefect_aws(root: Address, closed_weed: Server) -> None:
    aws = pytest.importorskip("prefect_aws", reason="needs prefect-aws")
    credentials = aws.AwsCredentials(**fields_of(closed_weed))
    parameters = aws.AwsClientParameters(endpoint_url=closed_weed.url)
    minio = aws.MinIOCredentials(
        minio_root_user=ACCESS_KEY,
        minio_root_password=SECRET_KEY,
        region_name="us-east-1",
        aws_client_parameters=parameters,
    )

    for one in (credentials, minio):
        name = type(one).__name__.lower()
        one.save(name)
        ReadWriteUnderfolder(folder=root, credentials=one).save(name)
        block = ReadWriteUnderfolder.load(name)
        report = process_samples(block, incremented, run_key=name)
        assert report.counts["written"] == 2
        assert SECRET_KEY not in repr(block)
        undo_run(block, name)
    assert SECRET_KEY not in shown_by_the_api()


def test_the_block_of_prefect_gcp(tmp_path: Path) -> None:
    gcp = pytest.importorskip("prefect_gcp", reason="needs prefect-gcp")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    forms = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
    )
    info = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "id",
        "private_key": key.decode(),
        "client_email": "robot@p.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    credentials = gcp.GcpCredentials(service_account_info=info)

    block = ReadWriteUnderfolder(folder="gs://bucket/parts", credentials=credentials)

    options = options_for(Address.of("gs://bucket/parts"))
    assert options is not None
    assert "PRIVATE KEY" in options.revealed()["service_account_key"]
    assert "PRIVATE KEY" not in repr(block) + repr(options) + block.model_dump_json()
    assert Store(Address.of("gs://bucket/parts"), options)._store is not None


def test_the_block_of_prefect_azure() -> None:
    azure = pytest.importorskip("prefect_azure", reason="needs prefect-azure")
    text = f"AccountName=acc;AccountKey={SECRET}"
    credentials = azure.AzureBlobStorageCredentials(connection_string=text)

    block = ReadWriteUnderfolder(folder="az://container/parts", credentials=credentials)

    options = options_for(Address.of("az://container/parts"))
    assert options is not None
    assert options.revealed() == {"account_key": SECRET}
    assert SECRET not in repr(block) + repr(options) + block.model_dump_json()
