"""Object stores as other processes: `rclone serve s3` (on disk, survives being killed), moto's server (in memory), a small
Google Cloud Storage (in memory), and Microsoft's emulator of Azure's, Azurite, where it is installed.

A conftest.py makes the fixtures known: `from object_stores import azurite, bucket, google, moto, rclone, s3_store, store`.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import pytest
from pyarrow import fs

LOCALHOST = "127.0.0.1"
REGION = "us-east-1"
STARTS_WITHIN_S = 200.0
SCRIPTS = Path(sys.executable).parent
NUMBERS = count()
AZURITE = "azurite-blob"
# Azurite's only account and its key, which its documentation gives.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class ObjectStore:
    """One server process, which comes back on its port when it is killed and started again. {port} in the command is it."""

    name: str
    command: list[str]
    log: Path
    key: str
    secret: str = field(repr=False)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. RuntimeError with its last words where it ends instead."""
        self.port = self.port or free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
        command = [part.format(port=self.port) for part in self.command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.log.parent)
        give_up = time.monotonic() + STARTS_WITHIN_S
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"{self.name} does not answer on port {self.port}: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As kill -9 does."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def environment(self, *, with_endpoint: bool = False) -> dict[str, str]:
        """What a client process needs besides the URI; with the endpoint also in place of the URI's options."""
        environment = {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            # Not the developer's own, and no questions to the network.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            # rclone's server takes no checksums after the body.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "GOOGLE_APPLICATION_CREDENTIALS": os.devnull,
        }
        if self.name == "azurite":
            environment["AZURE_STORAGE_KEY"] = self.secret
        return environment | ({"AWS_ENDPOINT_URL": f"http://{LOCALHOST}:{self.port}"} if with_endpoint else {})

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this process a client of this store, whatever the developer's environment says."""
        for name in list(os.environ):
            if name.startswith(("AWS_", "AZURE_")):
                monkeypatch.delenv(name)
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)

    def make_bucket(self) -> "Bucket":
        name = f"bucket-{next(NUMBERS)}-{secrets.token_hex(3)}"
        if self.name == "google":
            options = {"scheme": "http", "endpoint_override": f"{LOCALHOST}:{self.port}", "project_id": "tests"}
            fs.GcsFileSystem(anonymous=True, **options).create_dir(name)
            return Bucket(self, name)
        if self.name == "azurite":
            services = dict.fromkeys(("blob_storage_authority", "dfs_storage_authority"), f"{LOCALHOST}:{self.port}")
            schemes = dict.fromkeys(("blob_storage_scheme", "dfs_storage_scheme"), "http")
            fs.AzureFileSystem(self.key, account_key=self.secret, **services, **schemes).create_dir(name)
            return Bucket(self, name)
        client = fs.S3FileSystem(
            access_key=self.key,
            secret_key=self.secret,
            region=REGION,
            scheme="http",
            endpoint_override=f"{LOCALHOST}:{self.port}",
            allow_bucket_creation=True,
        )
        client.create_dir(name)
        return Bucket(self, name)


class HasEndpoint(Protocol):
    """Stands between a client and a store."""

    @property
    def endpoint(self) -> str: ...


@dataclass
class Bucket:
    """A bucket of its own for a test."""

    store: ObjectStore
    name: str

    def uri(self, prefix: str, proxy: HasEndpoint | None = None, *, with_credentials: bool = False) -> str:
        """The URI of a prefix, reached directly or through a proxy.

        Loader processes come from one fork server, which keeps the environment of the first that was asked for: they
        need the credentials in the URI.
        """
        endpoint = proxy.endpoint if proxy else f"{LOCALHOST}:{self.store.port}"
        if self.store.name == "google":
            return f"gs://anonymous@{self.name}/{prefix}?endpoint_override={endpoint}&scheme=http"
        if self.store.name == "azurite":
            secret = f":{quote(self.store.secret, safe='')}" if with_credentials else ""
            return f"abfs://{self.store.key}{secret}@{endpoint}/{self.name}/{prefix}?enable_tls=false"
        user = f"{self.store.key}:{self.store.secret}@" if with_credentials else ""
        return f"s3://{user}{self.name}/{prefix}?endpoint_override={endpoint}&scheme=http&region={REGION}"

    def label(self, path: str) -> str:
        """A run's folder in messages: its URI without options and credentials."""
        place = f"{self.store.key}@{LOCALHOST}:{self.store.port}/{self.name}"
        return {"google": "gs", "azurite": "abfs"}.get(self.store.name, "s3") + (
            f"://{place if self.store.name == 'azurite' else self.name}/{path}"
        )


def free_port() -> int:
    with socket.create_server((LOCALHOST, 0)) as listener:
        return listener.getsockname()[1]


def _answers(port: int) -> bool:
    connection = HTTPConnection(LOCALHOST, port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def rclone_store(folder: Path) -> ObjectStore:
    """Objects are files in folder/data, a bucket is a folder there. Requests are signed with its key, or refused."""
    (folder / "data").mkdir()
    key, secret = f"key{secrets.token_hex(6)}", secrets.token_hex(20)
    options = ["--addr", f"{LOCALHOST}:{{port}}", "--auth-key", f"{key},{secret}", "--vfs-cache-mode", "off"]
    command = [str(SCRIPTS / "rclone"), "serve", "s3", *options, "--config", "", str(folder / "data")]
    return ObjectStore("rclone", command, folder / "log.txt", key, secret)


def moto_store(folder: Path) -> ObjectStore:
    """Objects are in memory; any credentials will do."""
    command = [str(SCRIPTS / "moto_server"), "-H", LOCALHOST, "-p", "{port}"]
    return ObjectStore("moto", command, folder / "log.txt", "testing", "testing")


def google_store(folder: Path) -> ObjectStore:
    """Objects are in memory; any credentials will do."""
    command = [sys.executable, str(Path(__file__).with_name("gcs_server.py")), "{port}"]
    return ObjectStore("google", command, folder / "log.txt", "anonymous", "")


def azurite_store(folder: Path) -> ObjectStore:
    """Blobs are on disk. Requests are signed with its account's key, or refused; it has no hierarchical namespace."""
    command = [
        AZURITE,
        "--blobPort",
        "{port}",
        "--location",
        str(folder),
        "--silent",
        "--skipApiVersionCheck",
        "--disableTelemetry",
    ]
    return ObjectStore("azurite", command, folder / "log.txt", AZURE_ACCOUNT, AZURE_KEY)


def _running(store: ObjectStore) -> Iterator[ObjectStore]:
    store.start()
    try:
        yield store
    finally:
        store.kill()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    yield from _running(rclone_store(tmp_path_factory.mktemp("rclone")))


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    yield from _running(moto_store(tmp_path_factory.mktemp("moto")))


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    yield from _running(google_store(tmp_path_factory.mktemp("google")))


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    if not shutil.which(AZURITE):
        pytest.skip(f"no {AZURITE} in PATH: npm install --global azurite")
    yield from _running(azurite_store(tmp_path_factory.mktemp("azurite")))


def _used(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    server: ObjectStore = request.getfixturevalue(request.param)
    server.use(monkeypatch)
    return server


# Google's has tests of its own, test_google.py, that are not slow; and rclone's, test_faults.py.
@pytest.fixture(
    params=["moto", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rclone", "google", "azurite"))]
)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Each of the servers in turn, this process being its client."""
    return _used(request, monkeypatch)


@pytest.fixture(params=["moto", pytest.param("rclone", marks=pytest.mark.slow)])
def s3_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Each of those that speak S3."""
    return _used(request, monkeypatch)


@pytest.fixture
def bucket(store: ObjectStore) -> Bucket:
    return store.make_bucket()
