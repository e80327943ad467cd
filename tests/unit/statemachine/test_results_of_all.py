"""The results of all sessions together have a bound, and each principal an equal part of it (from level 7 on)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.statemachine import commands, machine, sessions
from coordinator.statemachine.commands import (
    CancelAcquire,
    CloseSession,
    Done,
    ExpireSessions,
    Failure,
    NotHeld,
    PutKey,
    ReleaseLock,
    Transact,
)
from coordinator.statemachine.files import ReadFile
from coordinator.statemachine.results import RESULT_COST, SMALL, size_of
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored

pytestmark = pytest.mark.interpreted

MOST = 20 * RESULT_COST
END = 4 * MOST


@pytest.fixture(autouse=True)
def bounds(monkeypatch):
    set_bounds(monkeypatch)


def set_bounds(patched: pytest.MonkeyPatch) -> None:
    for module in (machine, sessions):
        patched.setattr(module, "ALL_RESULT_BYTES_MAX", MOST)
    patched.setattr(sessions, "ALL_RESULT_BYTES_END", END)


def is_busy(result: Any) -> bool:
    return isinstance(result, Failure) and result.code == commands.BUSY


def put(asking: Asking, session: int, number: int, principal: str = "ci", acked: int = 0) -> Any:
    return asking.send(session, number, PutKey("a", b"1"), principal, acked=acked)


def filled(asking: Asking, principal: str = "ci", each: int = 3) -> list[int]:
    """Sessions of this principal that acknowledge nothing, with so many results each, until one is refused."""
    full: list[int] = []
    while True:
        session = asking.open(principal)
        for number in range(2, 2 + each):
            if is_busy(put(asking, session, number, principal)):
                return [*full, session]
        full.append(session)
        assert len(full) < 100, "there is no bound"


def test_however_many_sessions_a_principal_has_their_results_have_a_bound():
    asking = Asking()
    full = filled(asking)
    assert len(full) == 7, "six with three results, and one with two"
    assert asking.machine.state.kept.bytes == MOST
    last = full[-1]
    refused = put(asking, last, 9)
    assert refused.code == commands.BUSY
    assert refused.message == (
        f"principal 'ci' has not acknowledged {MOST} bytes of results: "
        f"of all 1 principals with sessions there are {MOST}, at most {MOST}, in equal parts"
    )
    assert 9 not in asking.machine.sessions[last].results, "it may be sent again"
    assert isinstance(put(asking, last, 2), Done), "what was answered is answered again"
    assert isinstance(put(asking, last, 1), Done), "the lowest number is always taken"
    assert isinstance(put(asking, last, 9, acked=4), Done), "it acknowledged three"


def test_small_results_count_too():
    asking = Asking()
    session = asking.open()
    taken = 0
    while not is_busy(put(asking, session, 2 + taken)):
        taken += 1
    assert taken == MOST // RESULT_COST


def test_who_has_not_its_part_is_not_kept_from_asking():
    asking = Asking()
    web = asking.open("web")
    filled(asking)
    for number in range(2, 12):
        assert isinstance(put(asking, web, number, "web"), Done)
    assert is_busy(put(asking, web, 12, "web")), "half is the part of each of two"
    assert asking.machine.state.kept.bytes <= 2 * MOST
    asking.open("narrow")
    asking.node(ExpireSessions((web,)))
    assert isinstance(put(asking, asking.open("web"), 2, "web"), Done)


def test_what_lets_go_is_taken_up_to_four_times_as_much_and_a_close_always():
    """However much is one principal's: the bound is that of all."""
    asking = Asking()
    web = asking.open("web")
    full = filled(asking)
    session = full[0]
    number = 10
    while not is_busy(result := asking.send(session, number, ReleaseLock("a", 1))):
        assert isinstance(result, NotHeld)
        number += 1
    assert asking.machine.state.kept.bytes == END
    assert f"at most {END}" in result.message
    assert is_busy(put(asking, session, 1)), "not even the lowest number"
    assert isinstance(asking.send(session, number, CloseSession()), Done)
    for other in full[1:]:
        assert isinstance(asking.send(other, 1, CloseSession()), Done)
    assert isinstance(asking.send(web, 1, CloseSession(), "web"), Done)
    assert (asking.machine.state.kept.bytes, asking.machine.state.kept.shares) == (0, {})
    assert isinstance(put(asking, asking.open(), 2), Done)


def test_sessions_that_end_give_back_what_theirs_take():
    asking = Asking()
    full = filled(asking)
    assert is_busy(put(asking, full[0], 9))
    asking.node(ExpireSessions(tuple(full[1:])))
    assert asking.machine.state.kept.bytes == asking.machine.sessions[full[0]].kept_bytes == 3 * RESULT_COST
    assert isinstance(put(asking, full[0], 9), Done)


def test_below_level_7_there_is_no_bound_and_all_is_counted_for_the_day_there_is():
    """Replicas of an earlier program know of none."""
    asking = Asking(level=6)
    session = asking.open()
    for number in range(2, 102):
        assert isinstance(put(asking, session, number), Done)
    restored(asking.machine)
    asking.node(commands.RaiseLevel(7))
    assert is_busy(put(asking, session, 102))
    assert isinstance(put(asking, session, 102, acked=102), Done)


NAMES = st.sampled_from("abc")
OPS = st.one_of(
    st.builds(PutKey, NAMES, st.binary(min_size=1, max_size=400)),
    st.builds(ReleaseLock, NAMES, st.integers(-1, 1)),
    st.builds(CancelAcquire, NAMES, st.integers(0, 1), st.integers(1, 20)),
    st.builds(Transact, st.just(()), st.lists(st.builds(ReadFile, NAMES), max_size=3).map(tuple)),
    st.just(CloseSession()),
)
PRINCIPALS = st.sampled_from(["ci", "web", "narrow"])


def taken(asking: Asking) -> dict[str, int]:
    """What the results of each principal with sessions take, told from the tables."""
    sums: dict[str, int] = defaultdict(int)
    for session in asking.machine.sessions.values():
        for result in session.results.values():
            sums[session.principal] += RESULT_COST + (0 if type(result) in SMALL else size_of(result))
        sums[session.principal] += 0
    return dict(sums)


@pytest.mark.long
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_taken_and_refused_is_as_the_document_says(data):
    with pytest.MonkeyPatch.context() as patched:
        set_bounds(patched)
        asking = Asking()
        mine: list[tuple[int, str]] = []
        for _ in range(data.draw(st.integers(1, 60))):
            if not mine or data.draw(st.integers(0, 7)) == 0:
                principal = data.draw(PRINCIPALS)
                mine.append((asking.open(principal), principal))
            session, principal = data.draw(st.sampled_from(mine))
            row = asking.machine.sessions[session]
            acked = data.draw(st.sampled_from([row.acked, row.acked, row.acked + 1]))
            number, op = data.draw(st.integers(acked, acked + 12)), data.draw(OPS)
            known = row.results.get(number)
            row.acknowledge(min(acked, number))  # As the request does; told beforehand, so that what is there is known.
            before = taken(asking)
            result = asking.send(session, number, op, principal, acked=acked)
            whole, part = sum(before.values()), before[principal] * len(before)
            if known is not None:
                assert result == known
            elif whole >= END <= part:
                assert is_busy(result) != isinstance(op, CloseSession)
            elif whole >= MOST <= part:
                may = number == row.acked or isinstance(op, (CloseSession, ReleaseLock, CancelAcquire))
                assert is_busy(result) != may
            else:
                assert not is_busy(result)
            mine = [one for one in mine if one[0] in asking.machine.sessions]
            kept = asking.machine.state.kept
            assert {name: share.bytes for name, share in kept.shares.items()} == taken(asking)
            assert kept.bytes == sum(taken(asking).values())
            if data.draw(st.booleans()):
                asking.machine = restored(asking.machine)
