"""Sessions and keys over HTTP."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token

SESSIONS = f"{API}/sessions"


async def test_a_session_is_opened_looked_at_and_closed(worker: Bearer) -> None:
    opened = await worker.post(SESSIONS, {"ttl_ms": 9000})
    assert opened.status_code == 201
    body = opened.json()
    assert (body["ttl_ms"], body["principal"], body["locks"]) == (9000, "worker", [])
    assert 8_000 < body["expires_in_ms"] <= 9000
    path = f"{SESSIONS}/{body['session']}"
    assert (await worker.get(path)).json()["ttl_ms"] == 9000
    closed = await worker.delete(path)
    assert closed.json() == {"session": body["session"], "closed": True}
    for response in (await worker.get(path), await worker.delete(path), await worker.post(f"{path}/keepalive")):
        assert response.status_code == 410
        assert response.json()["error"] == "session-gone"


async def test_a_keep_alive_gives_the_full_time_to_live_again(worker: Bearer, cluster: FakeCluster) -> None:
    session = (await worker.post(SESSIONS, {"ttl_ms": 9000})).json()["session"]
    cluster.pass_time(6000)
    assert (await worker.get(f"{SESSIONS}/{session}")).json()["expires_in_ms"] <= 3000
    kept = await worker.post(f"{SESSIONS}/{session}/keepalive")
    assert kept.status_code == 200
    assert kept.json()["session"] == session
    assert kept.json()["ttl_ms"] == 9000
    assert 8_000 < kept.json()["expires_in_ms"] <= 9000
    cluster.pass_time(6000)
    assert (await worker.get(f"{SESSIONS}/{session}")).status_code == 200
    cluster.pass_time(3001)
    assert (await worker.post(f"{SESSIONS}/{session}/keepalive")).status_code == 410


async def test_closing_a_session_frees_its_locks(worker: Bearer) -> None:
    session = (await worker.post(f"{API}/locks/deploy/acquire")).json()["session"]
    await worker.delete(f"{SESSIONS}/{session}")
    assert (await worker.get(f"{API}/locks/deploy")).json()["holder"] is None


@pytest.mark.parametrize("name", ["7", "s", "s0", "s01", "S7", "s-7", "s7x", "s" + "9" * 17, "s%20", "nobody"])
async def test_an_address_that_names_no_session_answers_404(worker: Bearer, name: str) -> None:
    for response in (
        await worker.get(f"{SESSIONS}/{name}"),
        await worker.delete(f"{SESSIONS}/{name}"),
        await worker.post(f"{SESSIONS}/{name}/keepalive"),
    ):
        assert response.status_code == 404, response.content
        assert response.json()["error"] == "not-found"


@pytest.mark.parametrize("ttl_ms", [499, 86_400_001, "9000", 9000.5, True, None])
async def test_a_session_with_a_bad_time_to_live_is_refused(worker: Bearer, ttl_ms: object) -> None:
    assert (await worker.post(SESSIONS, {"ttl_ms": ttl_ms})).status_code == 422


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"", b"\x00\xff<script>", "päper".encode(), b'{"a": 1}', b"x" * commands.VALUE_BYTES_MAX]
)
async def test_a_key_gives_back_the_bytes_that_were_written(worker: Bearer, value: bytes) -> None:
    written = await worker.put(f"{API}/keys/config/eu", value)
    assert written.status_code == 200
    assert written.json()["existed"] is False
    read = await worker.get(f"{API}/keys/config/eu")
    assert read.status_code == 200
    assert read.content == value
    assert read["Content-Type"] == "application/octet-stream"
    assert read["Conclave-Revision"] == str(written.json()["revision"])
    assert read["Conclave-Version"] == "1"


async def test_what_a_key_holds_is_never_taken_for_a_page(worker: Bearer) -> None:
    await worker.put(f"{API}/keys/page", b"<script>alert(1)</script>")
    read = await worker.get(f"{API}/keys/page")
    assert read["X-Content-Type-Options"] == "nosniff"
    assert read["Content-Disposition"] == "attachment"
    assert "sandbox" in read["Content-Security-Policy"]


async def test_a_key_that_is_not_there_answers_404(worker: Bearer) -> None:
    response = await worker.get(f"{API}/keys/nothing")
    assert response.status_code == 404
    assert response.json()["error"] == "not-found"


async def test_deleting_says_whether_there_was_anything(worker: Bearer) -> None:
    await worker.put(f"{API}/keys/a", b"1")
    first = (await worker.delete(f"{API}/keys/a")).json()
    second = (await worker.delete(f"{API}/keys/a")).json()
    assert (first["deleted"], second["deleted"]) == (True, False)
    assert second["revision"] > first["revision"]


async def test_a_value_that_is_too_large_is_refused(worker: Bearer) -> None:
    response = await worker.put(f"{API}/keys/a", b"x" * (commands.VALUE_BYTES_MAX + 1))
    assert response.status_code == 413
    assert response.json()["error"] == "too-large"


async def test_a_token_that_may_only_read_writes_nothing(cluster: FakeCluster) -> None:
    reader = Bearer(str(new_token(cluster, "reader", ("read",))))
    assert (await reader.put(f"{API}/keys/a", b"1")).status_code == 403
    assert (await reader.delete(f"{API}/keys/a")).status_code == 403
    assert (await reader.get(f"{API}/keys/a")).status_code == 404
