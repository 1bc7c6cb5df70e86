"""What reaches an object store comes from the environment, and no message shows a secret."""

from __future__ import annotations

import pytest

from alphapulse.config import Settings, Storage
from alphapulse.domain.errors import ConfigError, StoreError
from alphapulse.storage.lake.object_store import explain, storage_options

URI = "s3://bucket/lake"
SECRETS = {"AWS_ACCESS_KEY_ID": "AKIA0", "AWS_SECRET_ACCESS_KEY": "hush"}


def test_a_folder_needs_nothing() -> None:
    assert storage_options("/var/lake", environ={"AWS_ENDPOINT_URL": "http://10.0.0.1"}) == {}


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost", "[::1]:9000"])
def test_plain_http_is_allowed_on_loopback(host: str) -> None:
    options = storage_options(URI, environ=SECRETS | {"AWS_ENDPOINT_URL": f"http://{host}"})

    assert options["AWS_ALLOW_HTTP"] == "true"
    assert not set(SECRETS.values()) & set(options.values())


def test_plain_http_elsewhere_is_refused_unless_asked_for() -> None:
    environ = {"AWS_ENDPOINT_URL": "http://10.0.0.1:9000"}

    with pytest.raises(StoreError, match=r"expected an https endpoint.*AWS_ALLOW_HTTP=true"):
        storage_options(URI, environ=environ)
    assert storage_options(URI, environ=environ | {"AWS_ALLOW_HTTP": "true"})


def test_https_is_never_loosened() -> None:
    options = storage_options(URI, environ={"AWS_ENDPOINT_URL_S3": "https://s3.example"})

    assert "AWS_ALLOW_HTTP" not in options


def test_an_unknown_failure_is_told_in_one_line_without_secrets() -> None:
    error = OSError("Generic S3 error\n  \x1b[31m↳\x1b[0m 500 for AKIA0,\n hush")

    told = explain(URI, error, environ=SECRETS)

    assert told.startswith("Generic S3 error ↳ 500 for ***, ***; check that")


@pytest.mark.parametrize(
    "uri", ["s3://key:secret@bucket/lake", "ftp://host/lake", "http://key:secret@host/lake"]
)
@pytest.mark.parametrize("name", ["lake_uri", "archive_uri"])
def test_an_address_with_credentials_or_of_another_kind_is_refused_unread(
    name: str, uri: str
) -> None:
    with pytest.raises(ConfigError, match=rf"storage\.{name}: expected a folder or s3") as told:
        Settings(storage=Storage(**{name: uri}))

    assert "secret" not in str(told.value)


@pytest.mark.parametrize("uri", ["", "lake", "/var/lake", "s3://bucket", "s3://bucket/a/b"])
@pytest.mark.parametrize("name", ["lake_uri", "archive_uri"])
def test_folders_and_buckets_are_addresses(name: str, uri: str) -> None:
    storage = Settings(storage=Storage(**{name: uri})).storage

    assert getattr(storage, name) == uri


def test_an_archive_may_be_nowhere() -> None:
    assert Settings(storage=Storage(archive_uri="none")).storage.archive_uri == "none"
