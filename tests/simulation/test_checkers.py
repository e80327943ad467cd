"""What a checker counts and what it does not, where no seed shows it often enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.consensus.engine import HardState
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.consensus.raft.messages import VoteResponse
from coordinator.replica.ports import Write
from coordinator.statemachine.commands import Granted
from coordinator.statemachine.events import GrantMade
from coordinator.statemachine.lock_commands import EXCLUSIVE, Acquire, ChangeMode
from tests.simulation.checkers.election_safety import ElectionSafety
from tests.simulation.checkers.fencing_tokens import FencingTokens
from tests.simulation.model.locks import Hold, Name
from tests.simulation.watch import Violation

TERM = 4
OF_THREE = Configuration(tuple(Member(number, f"node{number}") for number in (1, 2, 3)))
YES = VoteResponse(TERM, granted=True, pre=False, campaign=1)


def _checker() -> ElectionSafety:
    world: Any = None
    return ElectionSafety(world)


def _candidate() -> Any:
    engine = SimpleNamespace(term=TERM, leader=1, configuration=OF_THREE)
    return SimpleNamespace(name="node1", boots=1, disk=SimpleNamespace(replica=1), engine=engine)


@pytest.mark.parametrize(
    ("on_disk", "answer", "is_elected"),
    [
        (HardState(TERM, 1, 0), YES, True),
        (HardState(TERM, 0, 0), YES, False),
        (HardState(TERM - 1, 1, 0), YES, False),
        # Seed 3007222 of before: the voter campaigned itself in the turn in which it had voted.
        (HardState(TERM + 1, 2, 0), YES, True),
        (HardState(TERM + 1, 2, 0), YES._replace(granted=False), False),
        (HardState(TERM + 1, 2, 0), YES._replace(pre=True), False),
        (HardState(TERM + 1, 2, 0), None, False),
    ],
)
def test_a_leader_has_votes_that_no_crash_takes_back(
    on_disk: HardState, answer: VoteResponse | None, is_elected: bool
) -> None:
    checker, node = _checker(), _candidate()
    checker.journaled(node, Write(1, HardState(TERM, 1, 0), 1, [], []))
    checker.journaled(node, Write(2, on_disk, 1, [], []))
    if answer is not None:
        checker.took(node, 2, answer)
    if is_elected:
        checker.elected(node)
    else:
        with pytest.raises(Violation, match="with the votes of 1 disks"):
            checker.elected(node)


def test_a_later_term_on_disk_is_no_vote_for_one_where_it_was_for_another() -> None:
    checker, node = _checker(), _candidate()
    for replica, state in ((1, HardState(TERM, 1, 0)), (2, HardState(TERM, 3, 0)), (2, HardState(TERM + 1, 2, 0))):
        checker.journaled(node, Write(replica, state, 1, [], []))
    checker.took(node, 2, YES)
    with pytest.raises(Violation, match="with the votes of 1 disks"):
        checker.elected(node)


@pytest.mark.parametrize(("own_token", "is_right"), [(38, True), (58, False)])
def test_of_several_names_those_that_a_session_had_are_not_granted_anew(own_token: int, is_right: bool) -> None:
    """Seed 5002828: they keep their tokens, though the acquisition is told the highest of all."""
    names = {"x0": Name(), "x1": Name()}
    expected = SimpleNamespace(command=None, is_new=True)
    world: Any = SimpleNamespace(
        watch=SimpleNamespace(truth=SimpleNamespace(locks=SimpleNamespace(names=names), expected=expected))
    )
    checker = FencingTokens(world)
    node: Any = None

    def apply(index: int, op: Any, result: Any, *events: GrantMade) -> None:
        expected.command = SimpleNamespace(op=op, session=23)
        checker.applied(node, index, b"", result, [*events], True)

    names["x1"].holds[23, 2] = Hold(38, ("x1",), 0)
    apply(38, None, None, GrantMade(23, "x1", 2, 38))
    names["x0"].holds[23, 5] = Hold(58, ("x0", "x1"), 0)
    names["x1"].holds[23, 5] = Hold(own_token, ("x0", "x1"), 0)
    apply(58, Acquire(("x0", "x1"), 5, reentrant=True), Granted(58))
    del names["x0"].holds[23, 5], names["x1"].holds[23, 5]
    upgrade = ChangeMode("x1", 2, EXCLUSIVE)
    if is_right:
        apply(64, upgrade, Granted(38))
    else:
        with pytest.raises(Violation, match="makes 'x1' exclusive by token 38; 58 was granted"):
            apply(64, upgrade, Granted(38))
