"""What the live page knows of a cluster, from the reports of its nodes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.membership.note import Note
from coordinator.statemachine.commands import Holder, LockView
from dashboard.model import ELECTIONS_MAX, FORGET_MS, NODES_MAX, UNREACHABLE_MS, ClusterModel, changes, with_changes
from tests.unit.dashboard.reports import NODES, election, feed, lock, locks, quorum

START = 10_000


def model_of(*feeds: wire.Feed, now_ms: int = START) -> ClusterModel:
    model = ClusterModel("default", NODES, now_ms)
    for each in feeds:
        assert model.apply(each, now_ms)
    return model


# --- which cluster ------------------------------------------------------------------------------

EARLIER = 0xBAD


def left_over(node: str = "node4", **changed: Any) -> wire.Feed:
    """Of a replica of an earlier cluster of the name, which stands for election there."""
    said: dict[str, Any] = {"term": 50, "cluster": EARLIER, "replica": 9, "voters": ("node4", "node5", "node6")}
    return feed(node, **{"role": "pre-candidate", "leader": "", **said, **changed})


@pytest.mark.parametrize("comes_first", [True, False])
def test_a_replica_left_over_of_an_earlier_cluster_of_the_name_is_no_part_of_the_one_that_is_led(
    comes_first: bool,
) -> None:
    old = left_over(elections=(election(49, "node5"),), last_index=900, commit_index=900)
    new = quorum(elections=(election(3),))
    view = model_of(*([old, *new] if comes_first else [*new, old])).view(START + UNREACHABLE_MS)
    assert view["cluster"] | {"leader": "node2", "term": 3, "voters": [*NODES], "commit_index": 20} == view["cluster"]
    assert view["sentence"]["state"] == "healthy"
    assert view["sentence"]["notes"] == ["node4 waits: its replica is of another cluster of this name"]
    assert [*view["elections"]] == ["3"]
    assert view["replicas"]["node4"] | {"role": "waiting", "term": None, "last": None} == view["replicas"]["node4"]


def test_of_a_cluster_that_is_no_more_nothing_is_shown_in_the_one_made_again_under_its_name() -> None:
    model = model_of(*quorum(term=50, elections=(election(50),), locks=locks(lock("old"))))
    for node in NODES:
        role = "leader" if node == "node1" else "follower"
        won = (election(2, "node1"),)
        model.apply(feed(node, role=role, leader="node1", term=2, cluster=EARLIER, elections=won), START + 9_000)
    view = model.view(START + 9_000)
    assert (view["cluster"]["leader"], view["cluster"]["term"]) == ("node1", 2)
    assert [*view["elections"]] == ["2"]
    assert view["locks"] == {}
    assert not view["lock_totals"]["known"]


def test_while_neither_of_two_clusters_of_the_name_is_led_the_one_that_was_is_shown() -> None:
    model = model_of(*quorum())
    for node in NODES:
        model.apply(feed(node, role="pre-candidate", leader=""), START + 100)
    model.apply(left_over(), START + 100)
    view = model.view(START + 100)
    assert (view["cluster"]["term"], view["cluster"]["voters"]) == (3, [*NODES])
    assert view["sentence"]["state"] == "leaderless"


# --- who leads ----------------------------------------------------------------------------------


def test_a_leader_that_a_majority_names_leads() -> None:
    view = model_of(*quorum()).view(START)
    assert view["cluster"]["leader"] == "node2"
    assert view["replicas"]["node2"]["leads"]
    assert view["sentence"]["state"] == "healthy"


def test_a_leader_that_only_itself_names_does_not_lead() -> None:
    model = model_of(feed("node2", role="leader"), feed("node1", leader=""), feed("node3", leader=""))
    view = model.view(START)
    assert view["cluster"]["leader"] == ""
    assert view["replicas"]["node2"] | {"role": "leader", "leads": False} == view["replicas"]["node2"]


def test_a_leader_of_an_old_term_does_not_lead() -> None:
    model = model_of(*quorum("node2", term=3))
    for each in quorum("node3", term=4, nodes=("node1", "node3")):
        model.apply(each, START + 200)
    view = model.view(START + 200)
    assert (view["cluster"]["leader"], view["cluster"]["term"]) == ("node3", 4)
    assert [node for node, row in view["replicas"].items() if row["leads"]] == ["node3"]


def test_followers_that_lost_their_leader_are_believed_at_once() -> None:
    model = model_of(*quorum())
    model.apply(feed("node1", role="pre-candidate", leader=""), START + 50)
    model.apply(feed("node3", role="pre-candidate", leader=""), START + 60)
    view = model.view(START + 860)
    assert view["cluster"]["leader"] == ""
    assert view["sentence"]["words"] == [["No leader for 0.8 s. Locks are kept; nobody new is let in.", ""]]


@pytest.mark.parametrize("left", [{"role": "pre-candidate", "leader": ""}, {"role": "follower", "term": 2}])
def test_who_reports_and_does_not_follow_the_leader_makes_good_no_loss(left: dict[str, Any]) -> None:
    """As a node whose own Redis its peers do not reach. A moment of it is what each election begins with."""
    model = model_of(*quorum())
    for since_ms in (0, 500, 1_000, 1_500, 2_000):
        for each in [*quorum(nodes=("node1", "node2")), feed("node3", **left)]:
            model.apply(each, START + since_ms)
        view = model.view(START + since_ms)
        said = view["sentence"]
        assert (said["state"] == "healthy") == (since_ms <= UNREACHABLE_MS), said
        counts = [node for node, row in view["replicas"].items() if row["counts"]]
        assert counts == ([*NODES] if said["state"] == "healthy" else ["node1", "node2"]), "what a crash would leave"
    words = "Degraded. node3 has not followed the leader for 2.0 s; one more loss stops the cluster."
    assert said["words"] == [[words, ""]]
    assert said["detail"][-1][0].startswith("3 of 3 replicas answer")
    for each in quorum():
        model.apply(each, START + 2_100)
    assert model.view(START + 2_100)["sentence"]["state"] == "healthy"


def test_a_cluster_of_one_leads_itself() -> None:
    model = ClusterModel("default", ["node1"], START)
    model.apply(feed("node1", role="leader", leader="node1", voters=("node1",)), START)
    assert model.view(START)["cluster"]["leader"] == "node1"


# --- who answers --------------------------------------------------------------------------------


def test_a_node_is_unreachable_once_its_last_report_is_older_than_the_bound() -> None:
    model = model_of(*quorum())
    later = START + UNREACHABLE_MS
    for each in quorum(nodes=("node2", "node3")):
        model.apply(each, later)
    assert model.view(later)["replicas"]["node1"]["role"] == "follower"
    row = model.view(later + 1)["replicas"]["node1"]
    assert (row["role"], row["silent_since_ms"], row["last"], row["counts"]) == ("unreachable", START, 20, False)


def test_a_node_never_heard_has_no_numbers() -> None:
    row = model_of(*quorum(nodes=("node2", "node3"))).view(START + 5_000)["replicas"]["node1"]
    assert (row["role"], row["term"], row["last"], row["silent_since_ms"]) == ("unreachable", None, None, START)
    assert not row["counts"]


def test_silence_is_not_held_against_anybody_in_the_first_moment() -> None:
    model = model_of(feed("node1"))
    assert model.view(START + 100)["sentence"]["state"] == "looking"
    assert model.view(START + UNREACHABLE_MS + 1)["sentence"]["state"] == "leaderless"


def test_a_node_that_hosts_nothing_waits_and_says_for_what() -> None:
    model = model_of(*quorum(nodes=("node2", "node3")))
    waits = feed("node1", role="waiting", waiting_for="its journal is empty", cluster_name="", replica=0, voters=())
    model.apply(waits, START)
    view = model.view(START)
    assert view["replicas"]["node1"]["term"] is None
    assert view["replicas"]["node1"]["last"] is None
    assert view["replicas"]["node1"]["waiting_for"] == "its journal is empty"
    assert not view["replicas"]["node1"]["counts"]
    assert view["sentence"]["notes"] == ["node1 waits: its journal is empty"]
    assert view["sentence"]["state"] == "degraded"


def test_losing_sight_is_not_the_nodes_silence() -> None:
    model = model_of(*quorum())
    model.blind(START + 3_000)
    said = model.view(START + 9_000)["sentence"]
    assert said["state"] == "blind"
    assert "for 9.0 s" in said["words"][0][0], "counted from what was heard last"
    model.sighted(START + 20_000)
    view = model.view(START + 20_100)
    assert view["sentence"]["state"] == "looking"
    assert view["replicas"]["node1"]["silent_since_ms"] == START + 20_000


def test_how_long_nobody_led_is_counted_from_when_that_could_be_seen() -> None:
    """The cluster may have had a leader all that time: the page did not hear of it."""
    nobody_leads = [feed(node, role="pre-candidate", leader="") for node in NODES]
    model = model_of(*nobody_leads)
    model.blind(START + 1_000)
    model.sighted(START + 60_000)
    for each in nobody_leads:
        model.apply(msgspec.structs.replace(each, number=2), START + 61_500)
    view = model.view(START + 61_500)
    assert view["cluster"]["leaderless_since_ms"] == START + 60_000
    assert view["sentence"]["words"][0][0].startswith("No leader for 1.5 s")


def test_voters_of_the_reports_are_expected_too_and_forgotten_when_no_longer_named() -> None:
    four = (*NODES, "extra")
    model = model_of(*(feed(node, role="leader" if node == "node2" else "follower", voters=four) for node in NODES))
    assert "extra" in model.nodes()
    model.apply(feed("extra", voters=four), START)
    for each in quorum(term=4):
        model.apply(each, START + 10)
    assert "extra" in model.view(START + 10)["replicas"]
    assert "extra" not in model.view(START + FORGET_MS + 20)["replicas"]


def test_nodes_that_came_and_went_while_nobody_looked_leave_room_for_others() -> None:
    """They were forgotten as a page was drawn: without one, the 65th name that a node had was never taken."""
    model, now_ms = model_of(*quorum()), START
    for number in range(2 * NODES_MAX):
        assert model.apply(feed(f"n{number}"), now_ms)
        now_ms += FORGET_MS + 1
        for each in quorum():
            assert model.apply(each, now_ms)
        model.tick(now_ms)
        assert model.nodes() == {*NODES}


def test_no_more_nodes_are_kept_than_the_bound() -> None:
    model = ClusterModel("default", ["node1"], START)
    taken = [model.apply(feed(f"n{number}", voters=("node1",)), START) for number in range(NODES_MAX + 5)]
    assert taken.count(False) == 5
    assert model.view(START)["feed"]["dropped"] == {"too many nodes": 5}


# --- elections ----------------------------------------------------------------------------------


def test_the_winners_account_of_an_election_is_kept() -> None:
    told = election(3, reason="node1's channel fell silent", votes=2, voters=3, waited_ms=41)
    model = model_of(feed("node1", elections=(election(3),)), feed("node2", elections=(told,)))
    model.apply(feed("node3", elections=(election(3),)), START)
    assert model.view(START)["elections"]["3"]["reason"] == "node1's channel fell silent"


def test_only_the_latest_elections_are_kept() -> None:
    model = model_of()
    for term in range(1, ELECTIONS_MAX + 10):
        model.apply(feed("node1", elections=(election(term),)), START)
    kept = [int(term) for term in model.view(START)["elections"]]
    assert (len(kept), min(kept)) == (ELECTIONS_MAX, 10)


def test_a_term_that_began_before_this_process_has_its_whole_length() -> None:
    model = ClusterModel("default", NODES, START)
    for each in quorum(elections=(election(3, at_ms=1_000_000),)):
        model.apply(each, START, wall_ms=1_192_000)
    assert model.view(START)["sentence"]["detail"][-1][0].endswith("term 3 for 3 min 12 s")


# --- locks --------------------------------------------------------------------------------------


def test_a_lease_is_a_reading_of_the_readers_clock() -> None:
    model = model_of(*quorum(locks=locks(lock(expires_in_ms=9_000))))
    row = model.view(START + 100)["locks"]["deploy"]
    assert row["ends_at_ms"] == START + 9_000
    assert row["holder"] == {"session": "s5", "principal": "user:ann"}


def test_locks_that_came_before_their_leader_was_confirmed_count_from_when_they_came() -> None:
    model = model_of(feed("node2", role="leader", locks=locks(lock(expires_in_ms=9_000))))
    assert model.view(START)["locks"] == {}
    model.apply(feed("node1"), START + 70)
    assert model.view(START + 70)["locks"]["deploy"]["ends_at_ms"] == START + 9_000


def leased(model: ClusterModel, now_ms: int, **changed: Any) -> dict[str, Any]:
    model.apply(feed("node2", role="leader", locks=locks(lock(**changed))), now_ms)
    rows: dict[str, dict[str, Any]] = model.view(now_ms)["locks"]
    return rows["deploy"]


def test_late_reports_do_not_shake_a_lease_and_a_keep_alive_moves_it() -> None:
    model = model_of(*quorum())
    end = leased(model, START, expires_in_ms=9_000)["ends_at_ms"]
    assert leased(model, START + 130, expires_in_ms=8_900)["ends_at_ms"] == end
    assert leased(model, START + 1_000, expires_in_ms=10_000)["ends_at_ms"] == START + 11_000


def test_another_holder_has_a_lease_of_its_own() -> None:
    model = model_of(*quorum())
    leased(model, START, expires_in_ms=9_000)
    row = leased(model, START + 10, expires_in_ms=9_000, session=6, token=18)
    assert (row["ends_at_ms"], row["token"]) == (START + 9_010, 18)


def test_locks_stay_while_nobody_leads_and_are_not_counted_down() -> None:
    model = model_of(*quorum())
    leased(model, START, waiters=(Holder(9, 0, "bob"),))
    for node in ("node1", "node3"):
        model.apply(feed(node, role="pre-candidate", leader=""), START + 50)
    view = model.view(START + 60)
    assert "deploy" in view["locks"]
    assert view["lock_totals"] == {
        "known": True,
        "counting": False,
        "in_sight": True,
        "held": 1,
        "kept_back": 0,
        "kept_back_first": [],
        "waiting": 1,
    }


def how(model: ClusterModel, name: str) -> tuple[Any, ...]:
    row = model.view(START)["locks"][name]
    return row["mode"], row["holding"], row["limit"]


def test_a_row_says_how_the_lock_is_held_and_by_how_many() -> None:
    held = locks(lock("deploy"), lock("reports"), lock("slots"))
    shared = (wire.SharedLock("reports", "shared", 1, 3), wire.SharedLock("slots", "counting", 5, 2))
    model = model_of(*quorum(locks=held, shared=shared))
    assert how(model, "deploy") == ("exclusive", 1, 1)
    assert how(model, "reports") == ("shared", 3, None)
    assert how(model, "slots") == ("counting", 2, 5)


def test_of_a_node_that_does_not_tell_yet_how_locks_are_held_nothing_is_said_of_it() -> None:
    model = model_of(*quorum(locks=locks(lock())))
    assert how(model, "deploy") == (None, None, None)


def test_a_name_in_its_lock_delay_is_kept_back_and_not_held() -> None:
    back = LockView("reports", None, 9, (), 0, 0, 0)
    view = model_of(*quorum(locks=locks(lock("deploy"), back))).view(START)
    assert [*view["locks"]] == ["deploy"]
    assert (view["lock_totals"]["held"], view["lock_totals"]["kept_back"]) == (1, 1)


def test_of_the_names_that_are_kept_back_those_are_said_that_most_wait_for() -> None:
    back = [LockView(f"l{waiting}", None, 9, (), 0, 0, waiting) for waiting in (0, 1, 200, 3)]
    totals = model_of(*quorum(locks=locks(*back))).view(START)["lock_totals"]
    assert totals["kept_back"] == 4
    assert totals["kept_back_first"] == [{"name": f"l{waiting}", "waiting": waiting} for waiting in (200, 3, 1)]


def test_a_lock_of_conclave_itself_that_is_kept_back_is_not_counted_either() -> None:
    view = model_of(*quorum(locks=locks(LockView("conclave/reconciler", None, 9, (), 0, 0, 0)))).view(START)
    assert (view["lock_totals"]["held"], view["lock_totals"]["kept_back"]) == (0, 0)


def test_a_lock_of_conclave_itself_is_not_shown() -> None:
    waiter = Holder(6, 0, "web")
    held = locks(lock("conclave/reconciler", waiters=(waiter,)), lock("deploy"))
    view = model_of(*quorum(locks=held)).view(START)
    assert [*view["locks"]] == ["deploy"]
    assert (view["lock_totals"]["held"], view["lock_totals"]["waiting"]) == (1, 0)


def test_a_lock_that_is_free_is_gone_from_the_view() -> None:
    model = model_of(*quorum())
    leased(model, START)
    model.apply(feed("node2", role="leader", locks=locks()), START + 10)
    assert model.view(START + 10)["locks"] == {}


# --- changes ------------------------------------------------------------------------------------

_nodes = st.sampled_from(NODES)
_feeds = st.builds(
    lambda node, role, leader, term, last, held, told: feed(
        node,
        role=role,
        leader=leader,
        term=term,
        last_index=last,
        log=tuple(wire.LogCell(index, term, "x") for index in range(max(1, last - 3), last + 1)),
        locks=locks(*(lock(name, session=last, expires_in_ms=left) for name, left in held.items())),
        elections=(election(term, leader, votes=told),),
    ),
    _nodes,
    st.sampled_from(["leader", "follower", "pre-candidate", "candidate", "waiting"]),
    st.sampled_from(["", *NODES]),
    st.integers(1, 4),
    st.integers(0, 30),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 10_000), max_size=3),
    st.integers(0, 2),
)
_steps = st.lists(
    st.tuples(st.integers(0, 3_000), st.one_of(_feeds, st.sampled_from(["blind", "sighted", "quiet"]))), max_size=25
)


@given(_steps, st.integers(1, 4))
def test_an_old_view_with_the_changes_applied_is_the_new_view(
    steps: list[tuple[int, wire.Feed | str]], every: int
) -> None:
    """Zulip's event test, for any history of reports, however many of them lie between two looks."""
    model = ClusterModel("default", NODES, START)
    now_ms = START
    browser = json.loads(json.dumps(model.view(now_ms)))
    last = browser
    for place, (passed_ms, step) in enumerate(steps):
        now_ms += passed_ms
        if isinstance(step, wire.Feed):
            model.apply(step, now_ms)
        elif step == "blind":
            model.blind(now_ms)
        elif step == "sighted":
            model.sighted(now_ms)
        if place % every:
            continue
        fresh = model.view(now_ms)
        delta = json.loads(json.dumps(changes(last, fresh)))
        browser = with_changes(browser, delta)
        last = fresh
        assert browser == json.loads(json.dumps(fresh))


def test_nothing_changed_is_an_empty_delta() -> None:
    model = model_of(*quorum())
    assert changes(model.view(START), model.view(START)) == {"set": {}, "gone": {}}


@pytest.mark.parametrize("section", ["replicas", "locks", "elections", "log"])
def test_a_view_is_json(section: str) -> None:
    view = model_of(*quorum(elections=(election(),))).view(START)
    assert json.loads(json.dumps(view[section])) == view[section]


def test_a_node_that_reports_of_another_cluster_alone_hosts_none_of_this_one() -> None:
    model = ClusterModel("default", (*NODES, "node4"), 0)
    for each in quorum():
        model.apply(each, 1_000)
    other = feed("node4", role="leader", leader="node4", term=90, cluster_name="second", voters=("node4",))
    assert model.elsewhere(other, 1_100)
    view = model.view(1_200)
    assert view["replicas"]["node4"]["role"] == "waiting"
    assert view["replicas"]["node4"]["silent_since_ms"] is None
    assert view["cluster"]["leader"] == "node2"
    assert view["cluster"]["term"] == 3
    assert view["sentence"]["notes"] == []


def test_a_voter_that_reports_of_another_cluster_alone_is_said_to_host_no_replica() -> None:
    model = ClusterModel("default", NODES, 0)
    for each in quorum():
        model.apply(each, 1_000)
    other = feed("node3", cluster_name="second")
    assert not model.elsewhere(other, 1_100), "it was heard of late"
    for each in quorum(nodes=("node1", "node2")):
        model.apply(each, 4_000)
    assert model.elsewhere(other, 4_000)
    notes = model.view(4_000)["sentence"]["notes"]
    assert notes == ["node3 waits: it hosts no running replica of this cluster"]


def test_what_is_to_be_said_of_the_membership_is_a_note() -> None:
    model = ClusterModel("default", NODES, 0)
    model.membership = Note("membership: waiting: node4 is to get a replica, and does not answer")
    said = model.view(100)["sentence"]
    assert (said["notes"][-1], said["rebuild"]) == (model.membership.words, False)
