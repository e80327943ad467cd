"""Locks in all modes, asked for by the client of the state machine itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.client.errors import (
    Broken,
    Deadlock,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    LockNotAcquired,
    NotFound,
    OutcomeUnknown,
    Refused,
)
from coordinator.client.grants import ASK_US
from coordinator.statemachine.commands import PutKey
from coordinator.statemachine.lock_commands import ChangeMode, HandOver
from coordinator.wire import CommandRequest, decode_command
from tests.unit.client.cluster import Cluster, TestClient


@pytest.fixture
def other(cluster: Cluster) -> TestClient:
    return cluster.client()


def test_sharers_hold_together_and_one_that_wants_it_alone_waits(client: TestClient, other: TestClient):
    one = client.locks.acquire("doc", shared=True)
    two = other.locks.acquire("doc", shared=True)
    alone = other.later.locks.acquire("doc", refuse_deadlocks=False)
    client.cluster.pass_time(0.05)
    third = client.later.locks.acquire("doc", shared=True, refuse_deadlocks=False)
    client.cluster.pass_time(0.1)
    assert not alone.is_over
    assert not third.is_over, "nobody is let in past another"
    one.release()
    two.release()
    hold = alone.value()
    assert hold.token > two.token
    hold.release()
    assert third.value().mode == "shared"


def test_a_counting_lock_has_so_many_holders(client: TestClient, other: TestClient):
    holds = [client.locks.acquire("slots", limit=3) for _ in range(3)]
    with pytest.raises(LockNotAcquired) as caught:
        other.locks.acquire("slots", limit=3, wait=0)
    assert caught.value.holder.session == client.core.sessions[15_000].session
    waiting = other.later.locks.acquire("slots", limit=3)
    client.cluster.pass_time(0.05)
    assert holds[1].release()
    assert waiting.value().held
    with pytest.raises(InvalidRequest, match="counted to 3, not to 2"):
        other.locks.acquire("slots", limit=2, wait=0)


def test_several_names_are_taken_all_or_none(client: TestClient, other: TestClient):
    b = other.locks.acquire("b")
    both = client.later.locks.acquire("c", "a", "b")
    client.cluster.pass_time(0.05)
    assert client.locks.look("a").holding == 0
    b.release()
    hold = both.value()
    assert hold.names == ("a", "b", "c")
    assert {client.locks.look(name).token for name in hold.names} == {hold.token}
    assert hold.release()
    assert [client.locks.look(name).holding for name in hold.names] == [0, 0, 0]


def test_a_hold_is_let_go_at_the_end_of_a_with(client: TestClient):
    with client.locks.acquire("a") as hold:
        hold.check()
    assert client.locks.look("a").holding == 0
    with client.locks.hold("a", "b", shared=True) as both:
        assert both.mode == "shared"
    assert client.locks.look("a").holding == 0
    with pytest.raises(LeaseLost, match="released"):
        hold.check()
    assert hold.release() is False


def test_a_session_joins_its_own_hold_where_that_is_asked_for(client: TestClient):
    outer = client.locks.acquire("a")
    inner = client.locks.acquire("a", reentrant=True, wait=0)
    assert inner.token == outer.token
    outer.release()
    assert client.locks.look("a").holding == 1, "held until all have let go"
    inner.release()
    assert client.locks.look("a").holding == 0


def test_a_waiter_that_leaves_leaves_all_its_lines(client: TestClient, other: TestClient):
    held = other.locks.acquire("a")
    leaving = client.later.locks.acquire("a", "b")
    client.cluster.pass_time(0.05)
    assert client.locks.look("a").waiting == 1
    leaving.cancel()
    client.cluster.pass_time(0.05)
    assert (client.locks.look("a").waiting, client.locks.look("b").waiting) == (0, 0)
    held.release()
    assert other.locks.acquire("b", wait=0).held


def test_a_wait_that_is_over_names_the_holder(client: TestClient, other: TestClient):
    held = other.locks.acquire("a")
    with pytest.raises(LockNotAcquired) as caught:
        client.locks.acquire("a", "b", wait=0.3)
    assert caught.value.holder.session == held.session
    assert client.locks.look("a").waiting == 0


def test_a_grant_that_was_broken_before_it_was_heard_of_is_waited_for_again(cluster: Cluster, client: TestClient):
    """A waiter for ever, else: the cluster says Broken, and no grant comes."""
    other = cluster.client()
    held = other.locks.acquire("a")
    for later in (client.later.acquire_plain, client.later.locks.acquire):
        cluster.pushes = False
        waiting = later("a")
        cluster.pass_time(0.05)
        held.release()
        assert other.locks.force_release("a", "a test")
        cluster.pass_time(2 * ASK_US / 1e6)
        assert waiting.is_over, "it asked, was told, and asked anew"
        cluster.pushes = True
        other.locks.force_release("a", "a test")
        held = other.locks.acquire("a")


# --- changes of mode ------------------------------------------------------------------------------


def test_a_downgrade_keeps_the_token_and_lets_sharers_in(client: TestClient, other: TestClient):
    hold = client.locks.acquire("doc")
    sharer = other.later.locks.acquire("doc", shared=True)
    client.cluster.pass_time(0.05)
    token = hold.token
    hold.downgrade()
    assert (hold.mode, hold.token) == ("shared", token)
    assert sharer.value().held


def test_an_upgrade_waits_for_the_other_sharers_and_gives_a_higher_token(client: TestClient, other: TestClient):
    hold, sharer = client.locks.acquire("doc", shared=True), other.locks.acquire("doc", shared=True)
    old = hold.sequencer()
    upgrading = client.later_of(hold).upgrade()
    client.cluster.pass_time(0.5)
    assert not upgrading.is_over
    token = hold.token
    sharer.release()
    upgrading.value()
    assert hold.mode == "exclusive"
    assert hold.token > max(token, sharer.token)
    assert client.locks.check_sequencer(hold.sequencer())
    assert not client.locks.check_sequencer(old)


def test_an_old_push_is_not_taken_for_an_upgrade(cluster: Cluster, client: TestClient, other: TestClient):
    """History 8: the push of the shared grant has the same acquisition."""
    from coordinator import wire

    hold, _ = client.locks.acquire("doc", shared=True), other.locks.acquire("doc", shared=True)
    upgrading = client.later_of(hold).upgrade()
    cluster.pass_time(0.05)
    client.inbox.append(wire.GrantPushed(42, hold.session, "doc", hold.acquisition, hold.token))
    cluster.pass_time(0.5)
    assert not upgrading.is_over
    assert hold.mode == "shared"


def test_two_upgrades_are_a_deadlock_whose_cycle_is_told(client: TestClient, other: TestClient):
    one, two = client.locks.acquire("doc", shared=True), other.locks.acquire("doc", shared=True)
    first = client.later_of(one).upgrade()
    client.cluster.pass_time(0.05)
    with pytest.raises(Deadlock) as caught:
        two.upgrade()
    assert caught.value.cycle == ((two.session, "doc"), (one.session, "doc"))
    two.release()
    first.value()
    assert one.mode == "exclusive"


def test_an_upgrade_that_is_not_had_in_time_leaves_it_shared(client: TestClient, other: TestClient):
    hold, sharer = client.locks.acquire("doc", shared=True), other.locks.acquire("doc", shared=True)
    with pytest.raises(LockNotAcquired):
        hold.upgrade(wait=0)
    with pytest.raises(LockNotAcquired):
        hold.upgrade(wait=0.3)
    assert (hold.mode, client.locks.look("doc").upgrading) == ("shared", None)
    assert other.locks.acquire("doc", shared=True, wait=0).held, "others are let in again"
    assert sharer.held


def test_an_upgrade_whose_asker_left_is_ruled_out_however_late_it_comes(cluster: Cluster, client: TestClient):
    """History 12: the request is still under way when its asker gives it up; and an older one of the same session is
    not answered yet, so that its number is not acknowledged either."""
    other = cluster.client()
    hold, sharer = client.locks.acquire("doc", shared=True), other.locks.acquire("doc", shared=True)
    late: list[CommandRequest] = []

    def keep(request: object) -> bool:
        if isinstance(request, CommandRequest):
            op = decode_command(request.command).op
            if isinstance(op, ChangeMode) and op.mode == "exclusive":
                late.append(request)
                return True
            return isinstance(op, PutKey)
        return False

    cluster.drops = keep
    older = client.later.put("stuck", b"")
    upgrading = client.later_of(hold).upgrade()
    cluster.pass_time(0.02)
    upgrading.cancel()
    cluster.pass_time(0.1)
    assert late
    assert not older.is_over
    cluster.drops = lambda request: False
    cluster.serve(client, cluster.leader, late[0])
    sharer.release()
    cluster.pass_time(0.1)
    state = client.locks.look("doc")
    assert (state.mode, state.upgrading, hold.mode) == ("shared", None, "shared")
    assert hold.token == state.holders[0].token
    hold.release()


def test_an_upgrade_that_was_done_as_its_asker_left_is_undone(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("doc", shared=True)
    cluster.loses = lambda request: isinstance(request, CommandRequest)
    upgrading = client.later_of(hold).upgrade()
    cluster.pass_time(0.02)
    assert client.locks.look("doc").mode == "exclusive"
    upgrading.cancel()
    cluster.loses = lambda request: False
    cluster.pass_time(1)
    state = client.locks.look("doc")
    assert (state.mode, hold.mode, hold.token) == ("shared", "shared", state.holders[0].token)


def test_what_is_counted_or_of_several_names_does_not_change_its_mode(client: TestClient):
    for hold in (client.locks.acquire("c", limit=2), client.locks.acquire("a", "b")):
        with pytest.raises(InvalidRequest, match="one name"):
            hold.upgrade()
        with pytest.raises(InvalidRequest, match="one name"):
            hold.downgrade()


def loses(kind: type) -> Callable[[object], bool]:
    """Answers to commands of this kind are lost."""
    return lambda request: isinstance(request, CommandRequest) and isinstance(decode_command(request.command).op, kind)


def test_a_downgrade_without_an_answer_may_have_been_done(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("doc")
    cluster.loses = loses(ChangeMode)
    with pytest.raises(OutcomeUnknown):
        hold.downgrade(timeout=0.2)
    assert hold.mode == "shared", "others share it by now"
    cluster.loses = lambda request: False
    assert client.locks.check_sequencer(hold.sequencer())
    with pytest.raises(Refused, match="acquire it anew"):
        hold.upgrade()  # The unanswered downgrade may still be on its way, and arrive after it.
    assert hold.held
    assert hold.release()


def test_a_downgrade_is_reckoned_with_from_the_asking_on(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("doc")
    cluster.loses = loses(ChangeMode)
    asked = client.later_of(hold).downgrade()
    assert hold.mode == "shared"
    cluster.pass_time(0.02)
    asked.cancel()
    assert hold.mode == "shared"


def test_a_downgrade_that_was_refused_changes_nothing(cluster: Cluster, client: TestClient):
    cluster.grant("worker", "lock")
    hold = cluster.client("worker").locks.acquire("doc")
    cluster.grant("worker", "read")
    with pytest.raises(Forbidden):
        hold.downgrade()
    assert hold.mode == "exclusive"
    assert client.locks.check_sequencer(hold.sequencer())


# --- hand-over, force, sequencers -----------------------------------------------------------------


def test_a_hold_is_handed_to_a_waiter_past_the_line(cluster: Cluster, client: TestClient, other: TestClient):
    third = cluster.client()
    hold = client.locks.acquire("a")
    first = other.later.locks.acquire("a")
    cluster.pass_time(0.05)
    chosen = third.later.locks.acquire("a")
    cluster.pass_time(0.05)
    hold.hand_over(client.locks.look("a").waiters[1].holder)
    assert chosen.value().token > hold.token
    assert not first.is_over
    assert not hold.held
    with pytest.raises(LeaseLost):
        hold.hand_over(client.locks.look("a").waiters[0].holder)


def test_a_hold_is_handed_to_an_heir_that_stands_in_no_line(client: TestClient, other: TestClient):
    hold = client.locks.acquire("a")
    heir = other.locks.heir("a")
    waiting = other.later_of(heir).wait()
    client.cluster.pass_time(0.5)
    assert not waiting.is_over
    hold.hand_over(heir.holder)
    inherited = waiting.value()
    assert inherited.held
    assert inherited.token > hold.token
    assert inherited.release()
    with pytest.raises(LockNotAcquired):
        other.locks.heir("a").wait(wait=0.3)
    with pytest.raises(NotFound, match="no session 999"):
        client.locks.acquire("a").hand_over(type(heir.holder)(999, 1, ""))


def test_a_hold_whose_hand_over_was_not_answered_can_not_be_proven_held(
    cluster: Cluster, client: TestClient, other: TestClient
):
    """It is the heir's by then: there were two that were told that they hold it."""
    hold, heir = client.locks.acquire("a"), other.locks.heir("a")
    cluster.loses = loses(HandOver)
    with pytest.raises(OutcomeUnknown):
        hold.hand_over(heir.holder, timeout=0.2)
    assert heir.wait(wait=1).held
    assert not hold.held
    assert not hold.expires_in
    with pytest.raises(LeaseLost, match="may have been"):
        hold.check()
    cluster.loses = lambda request: False
    assert not hold.release(), "at its end it is let go, should it be here still"


def test_an_interrupted_hand_over_leaves_nothing_to_prove(cluster: Cluster, client: TestClient, other: TestClient):
    hold, heir = client.locks.acquire("a"), other.locks.heir("a")
    cluster.loses = loses(HandOver)
    giving = client.later_of(hold).hand_over(heir.holder)
    assert not hold.held, "already while it is asked for"
    cluster.pass_time(0.02)
    giving.cancel()
    assert heir.wait(wait=1).held
    with pytest.raises(LeaseLost):
        hold.check()


def test_a_hand_over_that_was_refused_leaves_it_held(client: TestClient, other: TestClient):
    hold, heir = client.locks.acquire("a"), other.locks.heir("a")
    with pytest.raises(NotFound):
        hold.hand_over(type(heir.holder)(999, 1, ""))
    hold.check()
    assert hold.release()


def test_two_that_wait_for_the_same_inheritance_are_both_told(cluster: Cluster, client: TestClient, other: TestClient):
    """The second took the place of the first, which waited to its deadline, or for ever."""
    hold, heir = client.locks.acquire("a"), other.locks.heir("a")
    waiting = [other.later_of(heir).wait(wait=3), other.later_of(heir).wait(wait=3)]
    cluster.pass_time(0.05)
    hold.hand_over(heir.holder)
    assert {each.value().acquisition for each in waiting} == {heir.holder.acquisition}


def test_two_that_wait_for_the_same_grant_are_both_told(cluster: Cluster, client: TestClient, other: TestClient):
    hold = client.locks.acquire("a")
    heir = other.later.locks.acquire("a")
    cluster.pass_time(0.05)
    wanted = client.locks.look("a").waiters[0].holder
    waiting = [client.later.wait_for_grant("a", wanted.session, wanted.acquisition, wait=3) for _ in range(2)]
    cluster.pass_time(0.05)
    hold.release()
    assert [each.value().token for each in waiting] == [heir.value().token] * 2


def test_a_unit_of_a_counting_lock_is_handed_over_to_a_waiter(cluster: Cluster, client: TestClient, other: TestClient):
    hold = client.locks.acquire("slots", limit=1)
    waiting = other.later_of(other.locks).acquire("slots", limit=1)
    cluster.pass_time(0.2)
    hold.hand_over(client.locks.look("slots").waiters[0].holder)
    given = waiting.value()
    assert (given.mode, hold.held, given.token > hold.token) == ("counting", False, True)
    assert other.locks.check_sequencer(given.sequencer())
    with pytest.raises(InvalidRequest, match="a counting to 1 hold is handed over to one that stands in line"):
        given.hand_over(client.locks.heir("slots").holder)
    assert given.held


def test_a_lock_that_was_taken_by_force_says_who_did_it_and_why(cluster: Cluster, client: TestClient):
    cluster.grant("worker", "lock")
    worker = cluster.client("worker")
    hold = worker.locks.acquire("a", shared=True)
    assert client.locks.force_release("a", "it hangs")
    with pytest.raises(Broken, match="root: it hangs"):
        hold.upgrade()
    assert hold.release() is False
    (found,) = client.locks.breaks()
    assert (found.name, found.principal, found.reason, found.token) == ("a", "root", "it hangs", hold.token)
    assert client.locks.force_release("a", "again") is False


def test_sequencers_are_good_for_one_grant(client: TestClient, other: TestClient):
    with client.locks.acquire("x:y") as hold:
        sequencer = hold.sequencer()
        assert sequencer == f"x:y:exclusive:{hold.token}"
        assert other.locks.check_sequencer(sequencer)
    assert not other.locks.check_sequencer(sequencer)
    assert not other.locks.check_sequencer("nonsense")
    with client.locks.acquire("a", "b") as both:
        with pytest.raises(InvalidRequest, match="for which of a, b"):
            both.sequencer()
        assert other.locks.check_sequencer(both.sequencer("b"))


# --- deaths ---------------------------------------------------------------------------------------


def test_a_deadlock_of_two_sessions_is_refused_and_its_cycle_told(client: TestClient, other: TestClient):
    a, b = client.locks.acquire("a"), other.locks.acquire("b")
    waiting = client.later.locks.acquire("b")
    client.cluster.pass_time(0.05)
    with pytest.raises(Deadlock, match=f"session {b.session} waits for 'a'") as caught:
        other.locks.acquire("a")
    assert caught.value.cycle == ((b.session, "a"), (a.session, "b"))
    b.release()
    assert waiting.value().held


def test_a_dead_holders_name_stays_unavailable_for_its_lock_delay(cluster: Cluster, client: TestClient):
    other = cluster.client()
    other.locks.acquire("a", ttl=1, lock_delay=3)
    other.die()
    waiting = client.later.locks.acquire("a")
    cluster.pass_time(3)
    assert not waiting.is_over
    assert client.locks.look("a").delay_ms == 3_000
    cluster.pass_time(2)
    assert waiting.is_over


def test_waiters_go_on_over_dead_leaders_and_lost_pushes(cluster: Cluster, client: TestClient):
    other = cluster.client()
    held = other.locks.acquire("a", "b")
    waiting = client.later.locks.acquire("b", "c")
    cluster.pass_time(0.05)
    cluster.kill_leader()
    cluster.pass_time(0.5)
    cluster.pushes = False
    held.release()
    assert waiting.value().held


def test_a_hold_whose_session_is_gone_is_lost(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("a", shared=True)
    cluster.expire(hold.session)
    with pytest.raises(LeaseLost, match="session is gone"):
        hold.upgrade()
    with pytest.raises(LeaseLost):
        hold.check()
    assert client.locks.acquire("a", wait=0).token > hold.token


def test_a_release_without_an_answer_goes_on_in_the_background(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("a", "b")
    cluster.loses = lambda request: isinstance(request, CommandRequest)
    with pytest.raises(OutcomeUnknown):
        hold.release(timeout=0.5)
    cluster.loses = lambda request: False
    cluster.pass_time(2)
    assert cluster.client().locks.acquire("a", "b", wait=0).held


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((), {}, "1 to 16 names, got 0"),
        (tuple(str(n) for n in range(17)), {}, "1 to 16 names, got 17"),
        (("a",), {"shared": True, "limit": 2}, "not both"),
        (("a",), {"limit": 0}, "from 1 to 1000000, got 0"),
        (("a",), {"limit": True}, "got True"),
        (("a",), {"lock_delay": 61}, "from 0 to 60, got 61"),
        (("a",), {"wait": -1}, "got -1"),
    ],
)
def test_bad_input_is_refused(client: TestClient, arguments, options, said):
    with pytest.raises(InvalidRequest, match=said):
        client.locks.acquire(*arguments, **options)
