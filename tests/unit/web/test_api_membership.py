"""Taking the log's word on the membership over HTTP, where the database was lost or put back."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import AsyncClient as DjangoAsyncClient

from coordinator.membership import edits, wanted
from coordinator.membership.wanted import Place, Wanted
from coordinator.models import AuditEntry, Cluster, WantedMembership
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeClient, FakeCluster
from tests.unit.web.helpers import API

REBUILD = f"{API}/membership/rebuild"
WANTED = Wanted((Place("node1"), Place("node2"), Place("node3")))


async def test_an_administrator_makes_the_database_say_what_the_log_says(
    as_admin: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    await FakeClient(cluster).command(commands.SetWantedMembership(1, wanted.encode(WANTED)))
    response = await as_admin.post(REBUILD, {}, content_type="application/json")
    assert (response.status_code, response.json()) == (200, {"generation": 1})
    row = await WantedMembership.objects.aget()
    assert (row.generation, wanted.decode(row.wanted.encode())) == (1, WANTED)
    assert (await AuditEntry.objects.aget(action="cluster.rebuilt")).details == {"generation": 1}


async def test_what_the_log_does_not_want_is_forgotten(as_admin: DjangoAsyncClient, cluster: FakeCluster) -> None:
    row = await Cluster.objects.acreate(name="default", cluster_id=f"{0xC0FFEE:x}")
    await WantedMembership.objects.acreate(cluster=row, generation=7, wanted=wanted.encode(WANTED).decode())
    response = await as_admin.post(REBUILD, {}, content_type="application/json")
    assert response.json() == {"generation": 0}
    assert not await WantedMembership.objects.aexists()


async def test_whoever_may_not_administer_is_refused(as_reader: DjangoAsyncClient, cluster: FakeCluster) -> None:
    response = await as_reader.post(REBUILD, {}, content_type="application/json")
    assert response.status_code == 403
    assert (await AuditEntry.objects.aget(action="cluster.rebuilt")).outcome == "refused"


async def test_without_a_leader_nothing_is_changed(as_admin: DjangoAsyncClient, cluster: FakeCluster) -> None:
    cluster.has_leader = False
    response = await as_admin.post(REBUILD, {}, content_type="application/json")
    assert response.status_code == 503
    assert not await WantedMembership.objects.aexists()


async def test_without_a_database_it_says_so(as_admin: DjangoAsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(edits, "take_word", gone)
    response = await as_admin.post(REBUILD, {}, content_type="application/json")
    assert (response.status_code, response.json()["error"]) == (503, "unavailable")
    assert response.json()["detail"] == "the database of this web process cannot be used now"
    assert response["Retry-After"] == "1"
