"""Reach a lake in an object store: with credentials from the environment only, and for so long."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from alphapulse.domain.errors import StoreError

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# A store that does not answer is told in seconds; the journal keeps what waits meanwhile.
PATIENCE = {
    "connect_timeout": "5s",
    "timeout": "60s",
    "max_retries": "3",
    "retry_timeout": "30s",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REMEDIES = (
    (
        r"\b403\b|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|169\.254\.169\.254",
        "the object store refused the credentials; set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY of an account that may list, read, write and delete there",
    ),
    (
        "NoSuchBucket",
        "the object store has no such bucket; create it, or correct storage.lake_uri or "
        "storage.archive_uri",
    ),
    (
        r"\(Connect\)|dns error|timed out|error sending request",
        "the object store does not answer; check AWS_ENDPOINT_URL and the network",
    ),
)


def is_object_store(uri: str) -> bool:
    """Return whether a lake's address names an object store, and not a folder."""
    return "://" in uri


def storage_options(uri: str, *, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what `deltalake` is to be told to reach `uri`; nothing for a folder.

    Endpoint, region and credentials are not in it: it reads them from the AWS_* variables itself,
    so that they are in no configuration, no log and no message between processes. Plain HTTP is
    for an endpoint on loopback alone, unless AWS_ALLOW_HTTP says otherwise.

    Raises StoreError if the endpoint is plain HTTP elsewhere.
    """
    if not is_object_store(uri):
        return {}
    endpoint = urlsplit(next((environ[name] for name in ENDPOINTS if environ.get(name)), ""))
    if endpoint.scheme != "http" or environ.get("AWS_ALLOW_HTTP"):
        return dict(PATIENCE)
    if endpoint.hostname not in _LOOPBACK:
        raise StoreError(
            f"lake {uri}: expected an https endpoint, was plain http at {endpoint.hostname}; "
            "correct AWS_ENDPOINT_URL, or set AWS_ALLOW_HTTP=true where the network is yours"
        )
    return {**PATIENCE, "AWS_ALLOW_HTTP": "true"}


def explain(uri: str, error: BaseException, *, environ: Mapping[str, str] = os.environ) -> str:
    """Return in one line what went wrong at a lake's address and what to do; no secret is in it."""
    text = " ".join(_COLOUR.sub("", str(error)).split())
    if is_object_store(uri):
        for pattern, remedy in _REMEDIES:
            if re.search(pattern, text):
                return remedy
        for secret in filter(None, map(environ.get, CREDENTIALS)):
            text = text.replace(secret, "***")
    return f"{text}; check that the folder or object store can be reached and has room"
