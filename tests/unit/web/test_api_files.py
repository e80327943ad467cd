"""Files, ranges, changes, transactions and counters over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from coordinator.api import ranges
from coordinator.api.file_schemas import TransactionIn
from coordinator.client.command_line import transacting
from coordinator.client.command_line.transacting import parse
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token, until

FILES = f"{API}/files"


def text(value: str | None) -> str | None:
    return None if value is None else base64.b64decode(value).decode()


async def create(worker: Bearer, path: str, value: bytes = b"", query: str = "") -> Any:
    return await worker.post_bytes(f"{FILES}/{path}{query}", value)


async def test_a_file_is_created_read_written_and_deleted(worker: Bearer) -> None:
    created = await create(worker, "deploy/eu", b"\x00one", "?parents=true")
    assert created.status_code == 201, created.content
    revision = created.json()["revision"]
    read = await worker.get(f"{FILES}/deploy/eu")
    assert (read.status_code, read.content) == (200, b"\x00one")
    assert (read["Conclave-Version"], read["Conclave-Instance"]) == ("1", str(revision))
    assert (read["Content-Type"], read["Content-Disposition"]) == ("application/octet-stream", "attachment")
    written = await worker.put(f"{FILES}/deploy/eu?generation=1&instance={revision}", b"two")
    assert written.status_code == 200, written.content
    changed = await worker.put(f"{FILES}/deploy/eu?generation=1", b"three")
    assert (changed.status_code, changed.json()["error"], changed.json()["version"]) == (409, "changed", 2)
    assert (await worker.get(f"{FILES}/deploy/eu", revision=revision)).content == b"\x00one"
    stat = (await worker.get(f"{API}/stats/deploy/eu")).json()
    assert (stat["version"], stat["size"], stat["directory"], stat["ephemeral"]) == (2, 3, False, False)
    deleted = await worker.delete(f"{FILES}/deploy?recursive=true")
    assert deleted.json()["deleted"] == 2
    assert (await worker.get(f"{FILES}/deploy/eu")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("post_bytes", f"{FILES}/a", 409, "exists"),
        ("post_bytes", f"{FILES}/none/b", 404, "not-found"),
        ("post_bytes", f"{FILES}/a/b", 409, "wrong-kind"),
        ("put", f"{FILES}/none", 404, "not-found"),
        ("put", f"{FILES}/d", 409, "wrong-kind"),
        ("delete", f"{FILES}/d", 409, "not-empty"),
        ("delete", f"{FILES}/none", 404, "not-found"),
        ("delete", f"{FILES}/a?generation=7", 409, "changed"),
        ("delete", f"{FILES}/a?generation=x", 422, "invalid"),
        ("get", f"{FILES}/d", 409, "wrong-kind"),
        ("get", f"{FILES}/a?revision=-1", 422, "invalid"),
        ("get", f"{FILES}/a?revision=99999", 422, "invalid"),
        ("get", f"{API}/stats/none", 404, "not-found"),
        ("get", f"{API}/directories/a", 409, "wrong-kind"),
        ("get", f"{API}/directories/none", 404, "not-found"),
        ("get", f"{API}/ranges", 422, "invalid"),
        ("get", f"{API}/ranges?start=", 422, "invalid"),
        ("get", f"{API}/ranges?start=a&limit=0", 422, "invalid"),
        ("get", f"{API}/ranges?start=a&sort_by=size", 422, "invalid"),
        ("get", f"{API}/changes?start=a&wait_ms=60001", 422, "invalid"),
        ("post_bytes", f"{FILES}/e?ephemeral=42", 422, "invalid"),
        ("post_bytes", f"{FILES}/e?ephemeral=s4242", 410, "session-gone"),
    ],
)
async def test_each_refusal_has_its_status_and_code(
    worker: Bearer, method: str, path: str, status: int, code: str
) -> None:
    await create(worker, "a")
    await create(worker, "d/x", b"", "?parents=true")
    call = getattr(worker, method)
    answer = await (call(path, b"") if method in ("put", "post_bytes") else call(path))
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.content
    assert answer.json()["detail"]


async def test_an_ephemeral_file_goes_with_the_session_that_was_named(worker: Bearer) -> None:
    session = (await worker.post(f"{API}/sessions")).json()["session"]
    assert (await create(worker, "lamp", b"", f"?ephemeral={session}")).status_code == 201
    stat = (await worker.get(f"{API}/stats/lamp")).json()
    assert (stat["ephemeral"], stat["sessions"]) == (True, [session])
    await worker.delete(f"{API}/sessions/{session}")
    assert (await worker.get(f"{API}/stats/lamp")).status_code == 404


async def test_sessions_are_attached_to_an_ephemeral_file_and_detached(worker: Bearer, other: Bearer) -> None:
    first, second = [(await worker.post(f"{API}/sessions")).json()["session"] for _ in range(2)]
    await create(worker, "lamp", b"", f"?ephemeral={first}")
    attach = {"path": "/lamp", "session": second}
    attached = await worker.post(f"{API}/attachments", attach)
    assert attached.status_code == 200, attached.content
    assert (attached.json()["path"], attached.json()["was_attached"]) == ("lamp", False)
    assert (await worker.post(f"{API}/attachments", attach)).json()["was_attached"] is True
    await worker.delete(f"{API}/sessions/{first}")
    assert (await worker.get(f"{API}/stats/lamp")).json()["sessions"] == [second]
    assert (await other.post(f"{API}/attachments", attach)).status_code == 410, "another's session"
    detached = await worker.delete(f"{API}/attachments?path=lamp&session={second}")
    assert (detached.status_code, detached.json()["was_attached"]) == (200, True)
    assert (await worker.get(f"{API}/stats/lamp")).status_code == 404
    assert (await worker.delete(f"{API}/attachments?path=lamp&session={second}")).json()["was_attached"] is False
    await create(worker, "stays")
    for path, status in (("stays", 409), ("none", 404)):
        assert (await worker.post(f"{API}/attachments", {"path": path, "session": second})).status_code == status
    absurd = await worker.delete(f"{API}/attachments?path=lamp&session=7")
    assert "such as s42" in absurd.json()["detail"]


async def test_old_revisions_are_given_up_by_who_may_administer(worker: Bearer, cluster: FakeCluster) -> None:
    first = (await worker.put(f"{API}/keys/a", b"1")).json()["revision"]
    last = (await worker.put(f"{API}/keys/a", b"2")).json()["revision"]
    assert (await worker.post(f"{API}/compactions", {"revision": last})).status_code == 403
    operator = Bearer(str(new_token(cluster, "operator", commands.RIGHTS)))
    done = await operator.post(f"{API}/compactions", {"revision": last})
    assert (done.status_code, done.json()) == (200, {"oldest": last})
    answer = await worker.get(f"{FILES}/a?revision={first}")
    assert (answer.status_code, answer.json()["oldest"]) == (410, last)
    late = await operator.post(f"{API}/compactions", {"revision": first})
    assert (late.status_code, late.json()["oldest"]) == (410, last)
    ahead = await operator.post(f"{API}/compactions", {"revision": 10**9})
    assert (ahead.status_code, ahead.json()["error"]) == (422, "invalid")


async def test_another_ones_session_keeps_no_files_of_mine(worker: Bearer, other: Bearer) -> None:
    session = (await other.post(f"{API}/sessions")).json()["session"]
    assert (await create(worker, "lamp", b"", f"?ephemeral={session}")).status_code == 410


async def test_directories_are_made_and_listed_in_pages(worker: Bearer) -> None:
    assert (await worker.post(f"{API}/directories/d")).status_code == 201
    assert (await worker.post(f"{API}/directories/d")).status_code == 409
    assert (await worker.post(f"{API}/directories/d?parents=true")).status_code == 201
    for number in range(3):
        await create(worker, f"d/{number}")
    page = (await worker.get(f"{API}/directories/d/", limit=2)).json()
    assert ([child["name"] for child in page["children"]], page["count"], page["next"]) == (["0", "1"], 3, "1")
    rest = (await worker.get(f"{API}/directories/d", after=page["next"])).json()
    assert ([child["name"] for child in rest["children"]], rest["next"]) == (["2"], None)
    assert [child["name"] for child in (await worker.get(f"{API}/directories")).json()["children"]] == ["d"]


async def test_a_file_is_written_and_deleted_by_the_revision_that_wrote_it_last(worker: Bearer) -> None:
    first = (await create(worker, "a", b"1")).json()["revision"]
    second = (await worker.put(f"{FILES}/a?revision={first}", b"2")).json()["revision"]
    for late in (await worker.put(f"{FILES}/a?revision={first}", b"3"), await worker.delete(f"{FILES}/a?revision=1")):
        assert (late.status_code, late.json()["error"], late.json()["version"]) == (409, "changed", 2)
    assert (await worker.delete(f"{FILES}/a?revision={second}")).json()["deleted"] == 1
    assert (await worker.put(f"{FILES}/a?revision={second}", b"3")).status_code == 404


async def test_directories_and_stats_are_read_as_they_were(worker: Bearer) -> None:
    first = (await create(worker, "d/a", b"1", "?parents=true")).json()["revision"]
    await worker.put(f"{FILES}/d/a", b"22")
    assert (await worker.delete(f"{FILES}/d?recursive=true")).status_code == 200
    page = (await worker.get(f"{API}/directories/d?revision={first}")).json()
    assert ([child["name"] for child in page["children"]], page["revision"]) == (["a"], first)
    assert (await worker.get(f"{API}/directories?revision={first}")).json()["count"] == 1
    assert (await worker.get(f"{API}/directories/d")).status_code == 404
    assert (await worker.get(f"{API}/stats/d/a?revision={first}")).json()["size"] == 1
    assert (await worker.get(f"{API}/stats/d/a")).status_code == 404


async def test_sequential_files_have_their_digits(worker: Bearer) -> None:
    made = [(await create(worker, "q/", b"", "?sequential=true&parents=true")).json()["path"] for _ in range(3)]
    assert made == sorted(set(made))


async def test_a_content_that_is_too_large_is_refused(worker: Bearer) -> None:
    assert (await create(worker, "b", b"x" * commands.VALUE_BYTES_MAX)).status_code == 201
    answer = await create(worker, "a", b"x" * (commands.VALUE_BYTES_MAX + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "too-large")


# --- ranges, changes ------------------------------------------------------------------------------


async def test_a_range_is_read_sorted_paged_and_deleted(worker: Bearer) -> None:
    for key, value in (("k/a", b"2"), ("k/b", b"1"), ("k/c", b"3")):
        await worker.put(f"{API}/keys/{key}", value)
    page = (await worker.get(f"{API}/ranges", start="k/", prefix=True, limit=2)).json()
    assert [(key["key"], text(key["value"])) for key in page["keys"]] == [("k/a", "2"), ("k/b", "1")]
    assert (page["count"], page["more"]) == (3, True)
    await worker.put(f"{API}/keys/k/c", b"new")
    rest = (await worker.get(f"{API}/ranges", start="k/", prefix=True, after="k/b", revision=page["revision"])).json()
    assert [(key["key"], text(key["value"])) for key in rest["keys"]] == [("k/c", "3")]
    by_value = (await worker.get(f"{API}/ranges", start="", prefix=True, sort_by="value", descending=True)).json()
    assert [key["key"] for key in by_value["keys"]] == ["k/c", "k/a", "k/b"]
    assert (await worker.delete(f"{API}/ranges?start=k/a&end=k/c")).json()["deleted"] == 2


async def test_changes_are_told_from_where_the_page_before_ended(worker: Bearer) -> None:
    first = (await worker.put(f"{API}/keys/k/a", b"1")).json()["revision"]
    await worker.put(f"{API}/keys/k/a", b"2")
    await worker.delete(f"{API}/keys/k/a")
    page = (await worker.get(f"{API}/changes", start="k/", prefix=True, since=first, limit=2, previous=True)).json()
    assert [text(change["after"]["value"]) for change in page["changes"]] == ["1", "2"]
    assert text(page["changes"][1]["before"]["value"]) == "1"
    rest = (await worker.get(f"{API}/changes", start="k/", prefix=True, since=page["since"], skip=page["skip"])).json()
    assert [(change["key"], change["after"]) for change in rest["changes"]] == [("k/a", None)]
    none = (await worker.get(f"{API}/changes", start="k/", prefix=True, since=rest["since"], skip=rest["skip"])).json()
    assert none["changes"] == []


async def test_a_call_that_waits_is_answered_by_the_first_change(worker: Bearer, cluster: FakeCluster) -> None:
    waiting = asyncio.create_task(worker.get(f"{API}/changes", start="a", wait_ms=60_000))
    await until(lambda: ranges._watching == 1)
    await asyncio.sleep(0)
    cluster_index = cluster.machine.applied
    await worker.put(f"{API}/keys/b", b"no")
    await worker.put(f"{API}/keys/a", b"yes")
    page = (await waiting).json()
    assert [text(change["after"]["value"]) for change in page["changes"]] == ["yes"]
    assert page["since"] > cluster_index
    assert ranges._watching == 0


async def test_what_was_compacted_is_told_with_the_oldest_revision_left(worker: Bearer, cluster: FakeCluster) -> None:
    first = (await worker.put(f"{API}/keys/a", b"1")).json()["revision"]
    last = (await worker.put(f"{API}/keys/a", b"2")).json()["revision"]
    cluster.machine.state.history.compact(last)
    for path in (
        f"{API}/changes?start=a&since={first}",
        f"{FILES}/a?revision={first}",
        f"{API}/stats/a?revision={first}",
        f"{API}/directories?revision={first}",
    ):
        answer = await worker.get(path)
        assert (answer.status_code, answer.json()["error"], answer.json()["oldest"]) == (410, "compacted", last)


async def test_the_number_of_calls_that_wait_is_bounded(worker: Bearer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "WATCHING_MAX", 0)
    answer = await worker.get(f"{API}/changes", start="a")
    assert (answer.status_code, answer.json()["error"], answer.json()["retry_after_ms"]) == (429, "busy", 1_000)


# --- transactions, counters -----------------------------------------------------------------------


async def test_a_transaction_takes_the_branch_that_its_comparisons_say(worker: Bearer) -> None:
    move = {
        "when": [{"key": "to", "target": "version", "number": 0}],
        "then": [
            {"do": "put", "key": "to", "text": "ä"},
            {"do": "create", "path": "d/f", "value": "AAE=", "parents": True},
            {"do": "add", "key": "n", "amount": 3},
            {"do": "read-range", "start": "d/", "prefix": True},
        ],
        "otherwise": [{"do": "read", "path": "to"}, {"do": "remove", "path": "d", "recursive": True}],
    }
    done = (await worker.post(f"{API}/transactions", move)).json()
    assert done["succeeded"] is True
    assert done["results"][1]["path"] == "d/f"
    assert done["results"][2]["value"] == 3
    assert done["results"][3]["keys"][0]["value"] == "AAE="
    again = (await worker.post(f"{API}/transactions", move)).json()
    assert again["succeeded"] is False
    assert text(again["results"][0]["value"]) == "ä"
    assert again["results"][1]["deleted"] == 2


async def test_a_transaction_that_is_refused_says_where_and_has_done_nothing(worker: Bearer) -> None:
    await create(worker, "a")
    body = {"then": [{"do": "put", "key": "b", "text": "1"}, {"do": "create", "path": "a"}]}
    answer = await worker.post(f"{API}/transactions", body)
    assert answer.status_code == 409
    assert (answer.json()["error"], answer.json()["place"], answer.json()["cause"]) == ("aborted", [1], "exists")
    assert (await worker.get(f"{API}/keys/b")).status_code == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"then": [{"do": "dance"}]}, "dance"),
        ({"then": [{"do": "put", "key": "a", "value": "no base64"}]}, "expected base64"),
        ({"then": [{"do": "put", "key": "a", "value": "", "text": ""}]}, "not both"),
        ({"then": [{"do": "put", "key": "a", "text": "\ud800"}]}, "expected valid Unicode"),
        ({"when": [{"key": "a", "target": "value", "text": "\udfff"}], "then": []}, "expected valid Unicode"),
        ({"then": [{"do": "put", "key": ""}]}, "1 to 512 bytes"),
        ({"when": [{"key": "a", "target": "version", "text": "1"}]}, "compared with `number`"),
        ({"when": [{"key": "a", "target": "value", "number": 1}]}, "compared with `value` or `text`"),
        ({"when": [{"key": "a", "target": "size", "number": 1}]}, "'lock-holder'"),
        ({"if": []}, "if"),
        ({"then": [{"do": "read-range", "start": "a", "end": "//b"}]}, "two slashes"),
        ({"then": [{"do": "create", "path": "a", "ephemeral": "7"}]}, "such as s42"),
        ({"then": [{"do": "transaction", "then": [{"do": "put"}]}]}, "then.0.transaction.then.0.put.key"),
        ({"then": [{"do": "delete", "key": "a"}] * 129}, "128"),
    ],
)
async def test_a_transaction_that_makes_no_sense_is_refused_with_what_was_expected(
    worker: Bearer, body: Any, said: str
) -> None:
    answer = await worker.post(f"{API}/transactions", body)
    assert answer.status_code == 422, answer.content
    assert said in answer.json()["detail"]


async def test_transactions_are_nested_and_say_where_one_was_refused(worker: Bearer) -> None:
    inner = {"do": "transaction", "when": [{"key": "a", "target": "version", "number": 1}]}
    inner |= {"then": [{"do": "create", "path": "b"}], "otherwise": [{"do": "put", "key": "c", "text": ""}]}
    body = {"then": [{"do": "put", "key": "a", "text": "1"}, inner]}
    done = (await worker.post(f"{API}/transactions", body)).json()
    assert done["results"][1]["succeeded"] is True, "it sees what came before it"
    assert done["results"][1]["results"][0]["path"] == "b"
    await worker.delete(f"{API}/keys/a")
    answer = await worker.post(f"{API}/transactions", body)
    assert (answer.status_code, answer.json()["place"], answer.json()["cause"]) == (409, [1, 0], "exists")
    assert (await worker.get(f"{API}/keys/a")).status_code == 404


async def test_transactions_that_are_nested_too_deep_are_refused_before_anything_is_asked(
    worker: Bearer, cluster: FakeCluster
) -> None:
    body: dict[str, Any] = {"then": [{"do": "put", "key": "a", "text": ""}]}
    for _ in range(3):
        body = {"then": [{"do": "transaction", **body}]}
    assert (await worker.post(f"{API}/transactions", body)).status_code == 200
    cluster.commands.clear()
    answer = await worker.post(f"{API}/transactions", {"then": [{"do": "transaction", **body}]})
    assert (answer.status_code, answer.json()["error"]) == (422, "too-many")
    assert "at most 4 deep" in answer.json()["detail"]
    assert cluster.commands == []


@pytest.mark.parametrize("levels", [50, 300])
async def test_what_is_nested_deep_is_refused_at_once(worker: Bearer, cluster: FakeCluster, levels: int) -> None:
    """Each level was validated twice by the one above it: 2 to the power of 50 steps on the web process's loop."""
    deep = '"do": "put", "key": "a", "text": ""'
    for _ in range(levels):
        deep = f'"do": "transaction", "then": [{{{deep}}}]'
    cluster.commands.clear()
    answer = await worker._client.post(
        f"{API}/transactions", f'{{"then": [{{{deep}}}]}}', content_type="application/json", headers=worker.headers
    )
    assert answer.status_code in (400, 422), answer.content
    assert cluster.commands == []


async def test_a_transaction_makes_a_file_that_goes_with_the_session_that_was_named(worker: Bearer) -> None:
    session = (await worker.post(f"{API}/sessions")).json()["session"]
    body = {"then": [{"do": "transaction", "then": [{"do": "create", "path": "lamp", "ephemeral": session}]}]}
    assert (await worker.post(f"{API}/transactions", body)).status_code == 200
    stat = (await worker.get(f"{API}/stats/lamp")).json()
    assert (stat["ephemeral"], stat["sessions"]) == (True, [session])
    await worker.delete(f"{API}/sessions/{session}")
    assert (await worker.get(f"{API}/stats/lamp")).status_code == 404
    answer = await worker.post(f"{API}/transactions", body)
    assert (answer.status_code, answer.json()["error"]) == (410, "session-gone")


async def test_operations_of_a_transaction_go_by_generation_instance_and_revision(worker: Bearer) -> None:
    created = (await create(worker, "a", b"one")).json()["revision"]
    await worker.put(f"{FILES}/a", b"two")
    for refused in (
        {"do": "write", "path": "a", "text": "x", "instance": created + 1},
        {"do": "write", "path": "a", "text": "x", "generation": 1},
        {"do": "remove", "path": "a", "instance": created + 1},
    ):
        answer = await worker.post(f"{API}/transactions", {"then": [refused]})
        assert (answer.status_code, answer.json()["cause"]) == (409, "changed"), refused
        assert (answer.json()["version"], answer.json()["instance"]) == (2, created)
    body = {
        "then": [
            {"do": "write", "path": "a", "text": "three", "generation": 2, "instance": created},
            {"do": "read", "path": "a", "revision": created},
            {"do": "read-range", "start": "a", "end": "/b", "revision": created},
            {"do": "read-range", "start": "", "prefix": True, "sort_by": "value", "keys_only": True},
        ]
    }
    results = (await worker.post(f"{API}/transactions", body)).json()["results"]
    assert text(results[1]["value"]) == text(results[2]["keys"][0]["value"]) == "one"
    assert results[3]["keys"][0]["value"] is None
    done = await worker.post(f"{API}/transactions", {"then": [{"do": "delete-range", "start": "a", "end": "/b"}]})
    assert done.json()["results"][0]["deleted"] == 1


async def test_a_transaction_is_the_same_over_http_and_from_a_shell(worker: Bearer, cluster: FakeCluster) -> None:
    every: list[dict[str, Any]] = [
        {"do": "put", "key": "/a", "value": "AAE="},
        {"do": "delete", "key": "b"},
        {"do": "delete-range", "start": "c", "end": "/d"},
        {"do": "add", "key": "n", "amount": -3},
        {"do": "create", "path": "e", "text": "ä", "sequential": True, "parents": True},
        {"do": "create", "path": "f", "ephemeral": "s42"},
        {"do": "make-directory", "path": "g", "parents": True},
        {"do": "write", "path": "h", "text": "", "generation": 2, "instance": 7},
        {"do": "remove", "path": "i", "recursive": True, "generation": 0, "instance": 1},
        {"do": "read", "path": "j", "revision": 1},
        {"do": "read-range", "start": "/", "prefix": True, "limit": 3, "revision": 1, "keys_only": True},
        {"do": "read-range", "start": "k", "end": "l", "sort_by": "value", "descending": True},
    ]
    when = [
        {"key": "a", "target": "value", "relation": "!=", "text": "x"},
        {"key": "/b", "target": "lock-holder", "relation": "<", "number": 3},
    ]
    nested = {"do": "transaction", "when": when, "then": every[:2], "otherwise": every[2:4]}
    body = {"when": when, "then": [*every, nested], "otherwise": every[:1]}
    assert TransactionIn.model_validate(body).command(0) == parse(json.dumps(body).encode()).build()
    reads = {"then": [{"do": "read", "path": "a"}, {"do": "read-range", "start": "a"}, {"do": "put", "key": "b"}]}
    await create(worker, "a", b"x")
    answer = (await worker.post(f"{API}/transactions", reads)).json()
    assert isinstance(done := cluster.last, commands.Transacted)
    assert transacting.told(done) == answer


async def test_a_counter_adds_up(worker: Bearer) -> None:
    assert (await worker.post(f"{API}/counters/n")).json()["value"] == 1
    assert (await worker.post(f"{API}/counters/n", {"amount": -5})).json()["value"] == -4
    await worker.put(f"{API}/keys/t", b"x")
    assert (await worker.post(f"{API}/counters/t")).json()["error"] == "wrong-kind"


async def test_rights_hold_for_files_and_ranges(cluster: FakeCluster) -> None:
    reader = Bearer(str(new_token(cluster, "reader", ("read",), ("pub/",))))
    assert (await create(reader, "pub/a")).status_code == 403
    assert (await reader.get(f"{API}/ranges", start="", prefix=True)).status_code == 403
    assert (await reader.get(f"{API}/changes", start="secret")).status_code == 403
    assert (await reader.get(f"{API}/ranges", start="pub/", prefix=True)).status_code == 200
