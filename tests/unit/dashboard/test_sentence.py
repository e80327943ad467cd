"""The first line of the live page, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard.sentence import BLIND, DEGRADED, HEALTHY, LEADERLESS, LOOKING, Standing, duration, listed, sentence

THREE = ("node1", "node2", "node3")


def standing(**changed: Any) -> Standing:
    fields: dict[str, Any] = {
        "voters": THREE, "leader": "node2", "term": 14, "term_ms": 192_000, "silent_ms": {}, "waiting": {},
        "leaderless_ms": None, "blind_ms": None, "looking": False,
    }  # fmt: skip
    return Standing(**(fields | changed))


def said(**changed: Any) -> tuple[str, str, str]:
    """State, sentence and detail, as plain text."""
    result = sentence(standing(**changed))
    return result.state, "".join(text for text, _ in result.words), "".join(text for text, _ in result.detail)


def test_all_is_well() -> None:
    assert said() == (
        HEALTHY,
        "Healthy. node2 leads; one more node can be lost.",
        "3 of 3 replicas answer · term 14 for 3 min 12 s",
    )


def test_the_leader_is_tagged_once_wherever_it_is_named() -> None:
    for result in (sentence(standing()), sentence(standing(silent_ms={"node1": 2_000}))):
        assert [text for text, tag in (*result.words, *result.detail) if tag == "leader"] == ["node2"]


@pytest.mark.parametrize(
    ("voters", "spare"),
    [
        (("node1",), "a loss stops the cluster"),
        (("node1", "node2"), "a loss stops the cluster"),
        (tuple(f"node{n}" for n in range(1, 6)), "two more nodes can be lost"),
        (tuple(f"node{n}" for n in range(1, 8)), "three more nodes can be lost"),
    ],
)
def test_what_may_still_be_lost_follows_from_the_voters(voters: tuple[str, ...], spare: str) -> None:
    assert said(voters=voters, leader="node1")[1] == f"Healthy. node1 leads; {spare}."


def test_a_silent_node_of_three() -> None:
    assert said(silent_ms={"node1": 12_400}) == (
        DEGRADED,
        "Degraded. node1 has not answered for 12 s; one more loss stops the cluster.",
        "node2 leads · 2 of 3 replicas answer · term 14 for 3 min 12 s",
    )


def test_two_silent_nodes_of_five_are_named_together() -> None:
    five = tuple(f"node{n}" for n in range(1, 6))
    assert said(voters=five, silent_ms={"node4": 9_000, "node1": 3_250})[1] == (
        "Degraded. node1 and node4 have not answered for 3.2 s; one more loss stops the cluster."
    )
    assert said(voters=five, silent_ms={"node4": 9_000})[1] == (
        "Degraded. node4 has not answered for 9.0 s; one more node can be lost."
    )


def test_a_waiting_node_is_named_and_its_reason_is_a_note() -> None:
    waiting = {"node1": "its journal is empty"}
    assert said(waiting=waiting)[1] == "Degraded. node1 waits; one more loss stops the cluster."
    assert sentence(standing(waiting=waiting)).notes == ("node1 waits: its journal is empty",)


def test_no_leader_while_a_majority_answers() -> None:
    assert said(leader="", leaderless_ms=800, term_ms=None) == (
        LEADERLESS,
        "No leader for 0.8 s. Locks are kept; nobody new is let in.",
        "3 of 3 replicas answer · term 14",
    )


def test_no_leader_because_too_few_answer() -> None:
    state, words, _ = said(leader="", leaderless_ms=31_000, silent_ms={"node1": 31_000}, waiting={"node3": "a journal"})
    assert state == LEADERLESS
    assert words == (
        "No leader for 31 s: 1 of 3 replicas answers (node3 waits), 2 are needed. Locks are kept; nobody new is let in."
    )


def test_no_leader_because_nobody_answers() -> None:
    silent = dict.fromkeys(THREE, 4_000)
    assert "none of 3 replicas answers, 2 are needed" in said(leader="", leaderless_ms=4_000, silent_ms=silent)[1]


def test_silence_means_nothing_before_anybody_could_have_spoken() -> None:
    state, words, detail = said(leader="", looking=True)
    assert (state, detail) == (LOOKING, "")
    assert words.startswith("Looking for the nodes.")


def test_without_redis_nothing_is_claimed_of_the_nodes() -> None:
    state, words, detail = said(blind_ms=3_000, silent_ms=dict.fromkeys(THREE, 3_000), leader="")
    assert (state, detail) == (BLIND, "")
    assert words == "Out of sight. The Redis that nodes report on has not answered for 3.0 s; nothing below is live."


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "0.0 s"),
        (840, "0.8 s"),
        (9_990, "9.9 s"),
        (10_000, "10 s"),
        (192_000, "3 min 12 s"),
        (18_180_000, "5 h 3 min"),
        (187_200_000, "2 d 4 h"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_names_are_listed_as_in_speech() -> None:
    assert [listed(THREE[:count]) for count in (1, 2, 3)] == ["node1", "node1 and node2", "node1, node2 and node3"]
