"""The API's description is a promise: it changes on purpose, or not at all.

After a change that is meant, run this file with UPDATE_SNAPSHOTS=1 in the environment, and read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SNAPSHOT = Path(__file__).parents[2] / "data" / "openapi.json"

_PHRASES = {"Content Too Large": "Request Entity Too Large", "Unprocessable Content": "Unprocessable Entity"}
"""Names of statuses, which are Python's."""


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    from coordinator.api import api

    return dict(json.loads(json.dumps(api.get_openapi_schema())))


def test_the_description_is_as_it_was(described: dict[str, Any]) -> None:
    text = json.dumps(described).replace(_session_cookie(), "conclave_session_PORT")
    for since_python_3_13, before in _PHRASES.items():
        text = text.replace(f'"{since_python_3_13}"', f'"{before}"')
    described = json.loads(text)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    assert described == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def _session_cookie() -> str:
    from django.conf import settings

    return str(settings.SESSION_COOKIE_NAME)


def test_the_fixed_routes_and_fields_are_there(described: dict[str, Any]) -> None:
    base = "/api/v1/clusters/{cluster}"
    paths = described["paths"]
    for path, method in (
        (f"{base}/locks/{{name}}/acquire", "post"),
        (f"{base}/locks/{{name}}/release", "post"),
        (f"{base}/locks/{{name}}", "get"),
        (f"{base}/locks", "get"),
        (f"{base}/sessions/{{session}}/keepalive", "post"),
        (f"{base}/status", "get"),
    ):
        assert method in paths[path], path
    schemas = described["components"]["schemas"]
    assert {"session", "token"} <= set(schemas["Acquired"]["properties"])
    assert {"name", "holder", "token", "waiters", "expires_in_ms"} <= set(schemas["LockOut"]["properties"])
    assert {"leader", "term", "replicas"} <= set(schemas["StatusOut"]["properties"])
    replica = {"node", "role", "term", "last_index", "commit_index", "applied_index", "pid"}
    assert replica <= set(schemas["ReplicaOut"]["properties"])
    ttl = next(part for part in schemas["AcquireIn"]["properties"]["ttl_ms"]["anyOf"] if part["type"] == "integer")
    assert (ttl["minimum"], ttl["maximum"]) == (500, 86_400_000)
    wait = schemas["AcquireIn"]["properties"]["wait_ms"]
    assert (wait["minimum"], wait["maximum"]) == (0, 3_600_000)


def test_every_operation_is_described_and_says_who_may_call_it(described: dict[str, Any]) -> None:
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["tags"], (method, path)
            assert [name for each in operation["security"] for name in each] == ["BearerToken", "SignedIn"], (
                method,
                path,
            )
            assert {"401", "503"} <= {str(status) for status in operation["responses"]}, (method, path)
