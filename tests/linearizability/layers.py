"""One layer of the history of a key: a return, and all that is open there. What layers are for is in `timeline`."""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.linearizability.history import Operation
from tests.linearizability.kinds import Group, Kind
from tests.linearizability.models import ANY_STATE, State


class Demand(NamedTuple):
    """A state that is yet to come, in some layer, with no root of it invoked later (see `models.Lens`)."""

    guard: State
    waiting: int
    """Bits of the open operations that wait for it; -1, which has all bits, if one invoked later will."""
    roots: int
    """Bits of the operations invoked so far, and not returned, that are roots of it."""


class Layer:
    """What lies between one return and the return before. See the head of this file."""

    __slots__ = (
        "changing",
        "demand_of_target",
        "demands",
        "groups",
        "may_opened",
        "must_opened",
        "observed",
        "open",
        "position",
        "settled",
        "shunned",
        "someone_observes_all",
        "target",
        "target_operation",
        "total",
    )

    def __init__(
        self,
        target: int,
        target_operation: Operation,
        must_opened: int,
        may_opened: int,
        open_operations: tuple[tuple[int, Operation, Kind], ...],
    ) -> None:
        assert target_operation.returned is not None
        self.position: Final = target_operation.returned
        self.target: Final = target
        self.target_operation: Final = target_operation
        self.must_opened: Final = must_opened
        """Bits of the operations invoked since the layer before that will return."""
        self.may_opened: Final = may_opened
        """Bits of those that will not."""
        self.open: Final = open_operations
        """(bit, operation, kind) of all that are open here and will return, the target among them."""
        self.groups: list[Group] | None = None
        """None until the layer is prepared; then the open operations by kind."""
        self.total = 0
        """Bits of the open operations that are legal in every state."""
        self.changing = 0
        """Bits of the open operations that change some state."""
        self.observed: set[State] = set()
        """States in which alone some open operation is legal."""
        self.shunned: set[State] = set()
        """States in which alone some open operation that changes nothing is not legal."""
        self.someone_observes_all = False
        """Of some open operation neither is known, and it depends on the state."""
        self.settled: dict[State, int] = {}
        """What `Timeline.settled` found so far."""
        self.demands: list[Demand] = []
        """A configuration that can not meet one of these leads nowhere."""
        self.demand_of_target: Demand | None = None
        """The one of them that the target waits for: a step behind which it can not be met leads nowhere. To heed it
        never changes how far a walk comes."""

    def prepare(self) -> None:
        """Sets what is derived from the open operations."""
        by_kind: dict[int, list[tuple[int, int]]] = {}
        kinds: dict[int, Kind] = {}
        for bit, operation, kind in self.open:
            assert operation.returned is not None
            by_kind.setdefault(kind.number, []).append((operation.returned, bit))
            kinds[kind.number] = kind
            traits = kind.traits
            if traits.is_total:
                self.total |= bit
            if not traits.is_read_only:
                self.changing |= bit
            if traits.guard is not ANY_STATE:
                self.observed.add(traits.guard)
            elif traits.shunned is not ANY_STATE:
                self.shunned.add(traits.shunned)
            elif not traits.is_blind:
                self.someone_observes_all = True
        self.groups = [
            Group(kinds[number], sum(bit for _, bit in bits), tuple(bit for _, bit in sorted(bits)))
            for number, bits in by_kind.items()
        ]

    def operation(self, bit: int) -> Operation:
        """The open operation of that bit."""
        return next(operation for other, operation, _ in self.open if other == bit)
