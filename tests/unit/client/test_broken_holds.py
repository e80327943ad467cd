"""A hold that was taken away by force: its holder, who asks nobody, is told, and can not prove it held any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from coordinator import wire
from coordinator.client.errors import Broken, LeaseLost
from coordinator.client.recipes.election import Election
from coordinator.client.session import Session
from coordinator.statemachine.commands import Holder
from coordinator.statemachine.lock_commands import BREAKS_MAX, Break
from tests.unit.client.cluster import CLUSTER, Cluster, TestClient

KEEP_ALIVES_S = 5.1
"""Of a session of 15 s one is sent within."""
TOLD_S = 0.02


@pytest.fixture
def other(cluster: Cluster) -> TestClient:
    return cluster.client()


def is_taken(hold: Any) -> bool:
    if hold.held:
        return False
    assert hold.expires_in == 0.0
    with pytest.raises(Broken, match="was taken away by root: it hangs") as caught:
        hold.check()
    assert (caught.value.by, caught.value.reason) == ("root", "it hangs")
    return True


HOLDS: dict[str, Callable[[TestClient], Any]] = {
    "exclusive": lambda client: client.locks.acquire("a"),
    "shared": lambda client: client.locks.acquire("a", shared=True),
    "counting": lambda client: client.locks.acquire("a", limit=3),
    "one of several": lambda client: client.locks.acquire("b", "a", "c"),
    "leadership": lambda client: Election(client, "a").campaign(),
}


@pytest.mark.parametrize("kind", HOLDS)
def test_it_is_known_at_once_where_the_session_was_kept_alive_before(
    cluster: Cluster, client: TestClient, other: TestClient, kind: str
) -> None:
    """`check` said of a hold that was taken away that it is held, for as long as its session lived."""
    hold, beside = HOLDS[kind](client), client.locks.acquire("beside")
    cluster.pass_time(KEEP_ALIVES_S)
    assert hold.held
    other.locks.force_release("a", "it hangs")
    cluster.pass_time(TOLD_S)
    assert is_taken(hold)
    assert beside.held, "of the same session"


def test_it_is_known_by_the_next_keep_alive_where_nothing_was_pushed(
    cluster: Cluster, client: TestClient, other: TestClient
) -> None:
    hold = client.locks.acquire("a")
    other.locks.force_release("a", "it hangs")
    cluster.pass_time(TOLD_S)
    assert hold.held, "no leader knows where its client is before the first keep-alive"
    cluster.pass_time(KEEP_ALIVES_S)
    assert is_taken(hold)


def test_it_is_told_again_where_answers_are_lost(cluster: Cluster, client: TestClient, other: TestClient) -> None:
    hold = client.locks.acquire("a")
    cluster.pushes = False
    cluster.pass_time(KEEP_ALIVES_S)
    lost: list[wire.Request] = []

    def loses(request: wire.Request) -> bool:
        if isinstance(request, wire.KeepAliveRequest) and len(lost) < 2:
            lost.append(request)
            return True
        return False

    cluster.loses = loses
    other.locks.force_release("a", "it hangs")
    cluster.pass_time(KEEP_ALIVES_S)
    assert len(lost) == 2
    cluster.pass_time(1)
    assert is_taken(hold)


def test_it_is_told_by_the_next_leader(cluster: Cluster, client: TestClient, other: TestClient) -> None:
    hold = client.locks.acquire("a")
    cluster.pushes = False
    cluster.pass_time(KEEP_ALIVES_S)
    other.locks.force_release("a", "it hangs")
    cluster.kill_leader()
    cluster.pass_time(KEEP_ALIVES_S)
    assert is_taken(hold)


def test_what_is_taken_anew_is_held(cluster: Cluster, client: TestClient, other: TestClient) -> None:
    hold = client.locks.acquire("a")
    cluster.pass_time(KEEP_ALIVES_S)
    other.locks.force_release("a", "it hangs")
    cluster.pass_time(TOLD_S)
    assert hold.release() is False
    again = client.locks.acquire("a")
    cluster.pass_time(2 * KEEP_ALIVES_S)
    assert again.held
    with pytest.raises(LeaseLost, match="was released"):
        hold.check()


def test_a_break_from_before_the_grant_of_the_same_acquisition_is_of_no_account(
    cluster: Cluster, client: TestClient, other: TestClient
) -> None:
    """It was broken before its client had heard of it, which asked again, and has it."""
    held = other.locks.acquire("a")
    cluster.pass_time(KEEP_ALIVES_S)
    cluster.pushes = False
    waiting = client.later.locks.acquire("a")
    cluster.pass_time(0.05)
    held.release()
    assert other.locks.force_release("a", "it hangs")
    hold = waiting.value()
    assert hold.held
    cluster.pass_time(3 * KEEP_ALIVES_S)
    assert hold.held, "nor when it has been told"


def test_what_another_cluster_says_is_of_no_account(cluster: Cluster, client: TestClient) -> None:
    hold = client.locks.acquire("a")
    made = Break(1, 9, "a", Holder(hold.session, hold.acquisition, "root"), hold.token, "root", "it hangs")
    client.reply(cluster.leader, [wire.HoldBroken(CLUSTER + 1, made)])
    assert hold.held
    client.reply(cluster.leader, [wire.HoldBroken(CLUSTER, made)])
    assert is_taken(hold)


def test_of_all_that_is_told_the_last_is_kept() -> None:
    session = Session(7, 15_000, 0)
    for number in range(1, BREAKS_MAX + 2):
        session.hold_broken(Break(number, number, "a", Holder(7, number, "root"), 10 * number, "root", "it hangs"))
    assert session.broken("a", 1, 10) is None
    assert session.broken("a", 2, 20) is not None
    newest = session.broken("a", BREAKS_MAX + 1, 1)
    assert newest is not None
    session.hold_broken(msgspec.structs.replace(newest, token=newest.token - 1))
    assert session.broken("a", BREAKS_MAX + 1, newest.token) == newest
