"""A session as its holder follows it: safe, in jeopardy, safe again or expired (Chubby, section 2.8)."""

from __future__ import annotations

import pytest

from coordinator.client.errors import Closed, LeaseLost
from coordinator.client.jeopardy import Standing
from tests.unit.client.cluster import Cluster, TestClient

JEOPARDY, SAFE, EXPIRED = Standing.JEOPARDY, Standing.SAFE, Standing.EXPIRED


def test_a_session_without_a_leader_is_in_jeopardy_and_safe_again_when_one_confirms_it(
    cluster: Cluster, client: TestClient
):
    session = client.session(ttl=2)
    hold = client.locks.acquire("a", ttl=2)
    assert (session.standing, session.session) == (SAFE, hold.session)
    cluster.lose_leader()
    assert session.next(timeout=1) is None, "its lease still runs"
    assert session.next() is JEOPARDY
    assert session.expires_in == 0
    with pytest.raises(LeaseLost):
        hold.check()
    cluster.pass_time(20)
    assert session.standing is JEOPARDY
    cluster.elect()
    assert next(session) is SAFE
    hold.check()


def test_what_is_asked_in_jeopardy_waits_for_the_session(cluster: Cluster, client: TestClient):
    session = client.session(ttl=1)
    cluster.lose_leader()
    cluster.pass_time(3)
    assert session.standing is JEOPARDY
    created = client.later.files.create("a", ephemeral=True, ttl=1, timeout=30)
    cluster.pass_time(3)
    assert not created.is_over
    cluster.elect()
    assert created.value().path == "a"
    assert client.files.stat("a").sessions == (session.session,)


def test_a_session_that_the_cluster_ended_has_expired(cluster: Cluster, client: TestClient):
    session = client.session(ttl=2)
    client.is_cut_off = True
    assert next(session) is JEOPARDY
    cluster.pass_time(3)
    client.is_cut_off = False
    assert [*session] == [EXPIRED]
    assert session.next() is None
    assert client.session(ttl=2).session != session.session


def test_the_end_of_the_grace_period_is_final_whatever_a_leader_says_later(cluster: Cluster, client: TestClient):
    session = client.session(ttl=1, grace=5)
    hold = client.locks.acquire("a", ttl=1)
    cluster.lose_leader()
    cluster.pass_time(4)
    assert session.standing is JEOPARDY
    cluster.pass_time(3)
    assert session.standing is EXPIRED
    cluster.elect()
    cluster.pass_time(0.5)
    assert session.session in cluster.machine.sessions, "the cluster has it still"
    with pytest.raises(LeaseLost, match="gone"):
        hold.check()
    assert [*session] == [EXPIRED]


def test_every_lease_of_an_expired_session_is_lost_though_nobody_looks(cluster: Cluster, client: TestClient):
    client.session(ttl=1, grace=2)
    hold = client.locks.acquire("a", ttl=1)
    cluster.lose_leader()
    cluster.pass_time(4)
    cluster.elect()
    cluster.pass_time(0.2)
    assert hold._state.grant.session.gone
    assert not hold.held


def test_a_session_that_is_kept_alive_says_nothing(cluster: Cluster, client: TestClient):
    session = client.session(ttl=1)
    watching = client.later_of(session).next()
    cluster.pass_time(10)
    assert not watching.is_over
    cluster.kill_leader()
    cluster.pass_time(5)
    assert not watching.is_over, "a leader that died in time is no jeopardy"


def test_a_session_that_is_closed_lets_go_of_everything(cluster: Cluster, client: TestClient):
    session = client.session(ttl=5)
    client.locks.acquire("a", ttl=5)
    client.files.create("f", ephemeral=True, ttl=5)
    session.close()
    assert [*session] == [EXPIRED]
    other = cluster.client()
    assert other.locks.acquire("a", wait=0).held
    assert other.files.count("f") == 0
    session.close()


def test_a_session_that_went_unseen_is_closed(cluster: Cluster, client: TestClient):
    session, heir = client.session(ttl=5), client.locks.heir("a", ttl=4)
    cluster.expire(session.session)
    session.close()
    assert [*session] == [EXPIRED]
    cluster.expire(heir.holder.session)
    with pytest.raises(LeaseLost, match="was to have it"):
        heir.wait(wait=1)


def test_a_session_ends_with_its_client(cluster: Cluster, client: TestClient):
    watching = client.later_of(client.session(ttl=1)).next()
    cluster.pass_time(0.1)
    client.close()
    assert isinstance(watching.error, Closed)
    assert client.running == []
