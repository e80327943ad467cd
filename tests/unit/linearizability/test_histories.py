"""Small histories written by hand, each with the verdict that anyone can see."""

from __future__ import annotations

import pytest

from tests.linearizability import (
    History,
    HistoryError,
    KeyValueModel,
    LockModel,
    Model,
    Operation,
    RegisterModel,
    Verdict,
    check,
)
from tests.linearizability.oracles import by_permutation, by_textbook
from tests.unit.linearizability.histories import Span, spans

REGISTER = RegisterModel()
STORE = KeyValueModel()
LOCK = LockModel()

GOOD: dict[str, tuple[Model, list[Span]]] = {
    "nothing happened": (REGISTER, []),
    "a read of the empty register": (REGISTER, [(0, 1, "read", None, None)]),
    "a read of what was written": (REGISTER, [(0, 1, "write", 1, True), (2, 3, "read", None, 1)]),
    "two reads on either side of a write that they overlap": (
        REGISTER,
        [(0, 7, "write", 1, True), (1, 2, "read", None, None), (3, 4, "read", None, 1)],
    ),
    "a read of either of two writes that overlap": (
        REGISTER,
        [(0, 3, "write", 1, True), (1, 2, "write", 2, True), (4, 5, "read", None, 1)],
    ),
    "a lost write that takes effect at once": (
        REGISTER,
        [(0, None, "write", 1, None), (1, 2, "read", None, 1), (3, 4, "read", None, 1)],
    ),
    "a lost write that takes effect late": (
        REGISTER,
        [
            (0, None, "write", 1, None),
            (1, 2, "write", 2, True),
            (3, 4, "read", None, 2),
            (5, 6, "read", None, 1),
        ],
    ),
    "a lost write that never takes effect": (
        REGISTER,
        [(0, None, "write", 1, None), (1, 2, "read", None, None), (3, 4, "read", None, None)],
    ),
    "a lost compare-and-set that takes effect late": (
        REGISTER,
        [(0, None, "cas", (1, 2), None), (1, 2, "write", 1, True), (3, 4, "read", None, 1), (5, 6, "read", None, 2)],
    ),
    "two lost writes of one value, both needed": (
        REGISTER,
        [
            (0, None, "write", 1, None),
            (1, None, "write", 1, None),
            (2, 3, "read", None, 1),
            (4, 5, "write", 2, True),
            (6, 7, "read", None, 1),
        ],
    ),
    "a compare that did not match": (REGISTER, [(0, 1, "write", 1, True), (2, 3, "cas", (2, 3), False)]),
    "a compare that only does not match while a write is under way": (
        REGISTER,
        [(0, 1, "write", 1, True), (2, 5, "write", 2, True), (3, 4, "cas", (1, 3), False)],
    ),
    "a compare-and-set of a value with itself": (
        REGISTER,
        [(0, 1, "write", 1, True), (2, 3, "cas", (1, 1), True), (4, 5, "read", None, 1)],
    ),
    "a write that restores what another hid": (
        REGISTER,
        [
            (0, None, "write", 0, None),
            (1, 2, "read", None, 0),
            (3, 6, "write", 1, True),
            (4, 5, "write", 0, True),
            (7, 8, "cas", (0, 1), True),
        ],
    ),
    "a write that is applied in time and seen after its return": (
        STORE,
        [(0, 2, "put", "a", True), (1, 3, "append", "b", True), (4, 5, "get", None, "ab")],
    ),
    "appends in the order that a get saw": (
        STORE,
        [(0, 3, "append", "a", True), (1, 2, "append", "b", True), (4, 5, "get", None, "ba")],
    ),
    "a get of a key never written": (STORE, [(0, 1, "get", None, "")]),
    "a put that hides the appends before it": (
        STORE,
        [(0, 1, "append", "a", True), (2, 3, "put", "b", True), (4, 5, "append", "c", True), (6, 7, "get", None, "bc")],
    ),
    "an append without an answer, seen late": (
        STORE,
        [
            (0, None, "append", "a", None),
            (1, 2, "append", "b", True),
            (3, 4, "get", None, "b"),
            (5, 6, "get", None, "ba"),
        ],
    ),
    "a lock passed on": (
        LOCK,
        [
            (0, 1, "acquire", "a", 5),
            (2, 6, "acquire", "b", 8),
            (3, 4, "release", "a", True),
            (7, 8, "release", "b", True),
        ],
    ),
    "a lock refused while another holds it": (LOCK, [(0, 1, "acquire", "a", 1), (2, 3, "acquire", "b", None)]),
    "a lock lost to an expiry": (
        LOCK,
        [
            (0, 1, "acquire", "a", 1),
            (2, 3, "expire", "a", True),
            (4, 5, "acquire", "b", 2),
            (6, 7, "release", "a", False),
        ],
    ),
    "a lost acquire that took effect, and its release": (
        LOCK,
        [(0, None, "acquire", "a", None), (1, 2, "acquire", "b", None), (3, 4, "release", "a", True)],
    ),
}

BAD: dict[str, tuple[Model, list[Span]]] = {
    "a stale read": (REGISTER, [(0, 1, "write", 1, True), (2, 3, "read", None, None)]),
    "a read of what no one wrote": (REGISTER, [(0, 1, "read", None, 1)]),
    "a read of what is written only afterwards": (REGISTER, [(0, 1, "read", None, 1), (2, 3, "write", 1, True)]),
    "a lost update": (
        REGISTER,
        [
            (0, 1, "write", 0, True),
            (2, 5, "cas", (0, 1), True),
            (3, 4, "cas", (0, 2), True),
        ],
    ),
    "two reads that disagree on the order of two writes": (
        REGISTER,
        [
            (0, 3, "write", 1, True),
            (1, 2, "write", 2, True),
            (4, 5, "read", None, 1),
            (6, 7, "read", None, 2),
        ],
    ),
    "a value that comes back": (
        REGISTER,
        [(0, 1, "write", 1, True), (2, 3, "write", 2, True), (4, 5, "read", None, 2), (6, 7, "read", None, 1)],
    ),
    "a lost write that takes effect twice": (
        REGISTER,
        [
            (0, None, "write", 1, None),
            (1, 2, "read", None, 1),
            (3, 4, "write", 2, True),
            (5, 6, "read", None, 1),
        ],
    ),
    "a lost write that takes effect before its invocation": (
        REGISTER,
        [(0, 1, "read", None, 1), (2, None, "write", 1, None)],
    ),
    "a lost compare-and-set that can not have matched": (
        REGISTER,
        [(0, None, "cas", (7, 1), None), (1, 2, "write", 2, True), (3, 4, "read", None, 1)],
    ),
    "a compare that must have matched": (REGISTER, [(0, 1, "write", 1, True), (2, 3, "cas", (1, 2), False)]),
    "a compare that can not have matched": (REGISTER, [(0, 1, "write", 1, True), (2, 3, "cas", (2, 1), True)]),
    "appends in the wrong order": (
        STORE,
        [(0, 1, "append", "a", True), (2, 3, "append", "b", True), (4, 5, "get", None, "ba")],
    ),
    "an append that vanished": (
        STORE,
        [(0, 1, "append", "a", True), (2, 3, "append", "b", True), (4, 5, "get", None, "b")],
    ),
    "an append applied twice": (STORE, [(0, 1, "append", "a", True), (2, 3, "get", None, "aa")]),
    "gets that disagree on the order of appends": (
        STORE,
        [
            (0, 3, "append", "a", True),
            (1, 2, "append", "b", True),
            (4, 5, "get", None, "ab"),
            (6, 7, "get", None, "ba"),
        ],
    ),
    "a lock held twice": (LOCK, [(0, 1, "acquire", "a", 1), (2, 3, "acquire", "b", 2)]),
    "a lock held twice, the release too late": (
        LOCK,
        [(0, 1, "acquire", "a", 1), (2, 3, "acquire", "b", 2), (4, 5, "release", "a", True)],
    ),
    "a token that does not grow": (
        LOCK,
        [(0, 1, "acquire", "a", 2), (2, 3, "release", "a", True), (4, 5, "acquire", "b", 2)],
    ),
    "a token no higher than that of a lost acquire must be": (
        LOCK,
        [
            (0, 1, "acquire", "a", 2),
            (2, 3, "release", "a", True),
            (4, None, "acquire", "b", None),
            (5, 6, "release", "b", True),
            (7, 8, "acquire", "c", 3),
        ],
    ),
    "a free lock refused": (LOCK, [(0, 1, "acquire", "a", None)]),
    "a release by one who does not hold it": (LOCK, [(0, 1, "release", "a", True)]),
}


def verdict(model: Model, operations: tuple[Operation, ...]) -> Verdict:
    return check(model, operations).verdict


@pytest.mark.parametrize(("model", "entries"), GOOD.values(), ids=GOOD)
def test_what_can_be_ordered_is_linearizable(model: Model, entries: list[Span]) -> None:
    operations = spans(*entries)
    assert verdict(model, operations) is Verdict.LINEARIZABLE
    assert by_permutation(model, operations)
    assert by_textbook(model, operations)


@pytest.mark.parametrize(("model", "entries"), BAD.values(), ids=BAD)
def test_what_can_not_be_ordered_is_not_linearizable(model: Model, entries: list[Span]) -> None:
    operations = spans(*entries)
    assert verdict(model, operations) is Verdict.NOT_LINEARIZABLE
    assert not by_permutation(model, operations)
    assert not by_textbook(model, operations)


def test_keys_are_judged_apart() -> None:
    one = spans((0, 1, "put", "a", True), (4, 5, "get", None, "a"), key="one")
    two = spans((2, 3, "get", None, ""), (6, 7, "get", None, ""), key="two", first_number=2)
    outcome = check(STORE, [*one, *two])
    assert outcome.verdict is Verdict.LINEARIZABLE
    assert set(outcome.orders) == {"one", "two"}
    bad = spans((2, 3, "get", None, "a"), key="two", first_number=2)
    outcome = check(STORE, [*one, *bad])
    assert outcome.verdict is Verdict.NOT_LINEARIZABLE
    assert outcome.bad_key == "two"


def test_a_linearizable_history_comes_with_its_order() -> None:
    operations = spans(
        (0, 5, "write", 1, True), (1, 4, "write", 2, True), (6, 7, "read", None, 1), (2, None, "write", 3, None)
    )
    order = check(REGISTER, operations).orders[""]
    assert [(operation.action, operation.argument) for operation in order] == [
        ("write", 2),
        ("write", 1),
        ("read", None),
    ]


class TestRecording:
    def test_a_process_that_invokes_again_has_given_up_on_what_it_had_open(self) -> None:
        history = History()
        history.invoke("a", "write", argument=1)
        history.invoke("a", "write", argument=2)
        history.complete("a", True)
        first, second = history.operations()
        assert (first.invoked, first.returned) == (0, None)
        assert (second.invoked, second.returned) == (1, 2)

    def test_what_was_cancelled_leaves_no_operation(self) -> None:
        history = History()
        history.invoke("a", "write", argument=1)
        history.cancel("a")
        assert history.operations() == ()
        assert len(history) == 2

    def test_what_was_lost_has_no_return(self) -> None:
        history = History()
        history.invoke("a", "write", argument=1)
        history.lose("a")
        (operation,) = history.operations()
        assert operation.outcome_is_unknown
        assert history.open_operation("a") is None

    def test_a_return_without_an_invocation_is_refused(self) -> None:
        history = History()
        for end in (history.complete, history.lose, history.cancel):
            with pytest.raises(HistoryError, match="process a returned, but has no operation open"):
                end("a")

    def test_what_is_still_open_has_an_unknown_outcome(self) -> None:
        history = History()
        history.invoke("a", "read")
        assert history.operations()[0].outcome_is_unknown
