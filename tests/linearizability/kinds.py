"""Operations that are alike: the kinds of them, and those of a kind that are open together or were lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.linearizability.history import Operation
from tests.linearizability.models import Traits


class Kind(NamedTuple):
    """Operations that step alike in every state."""

    number: int
    example: Operation
    traits: Traits


class Lost(NamedTuple):
    """The operations of one kind whose outcome is unknown."""

    kind: Kind
    bits: int
    operations: tuple[Operation, ...]
    """In the order of invocation, which is that of their bits."""
    layers: tuple[int, ...]
    """For each of them the first layer in which it may take effect."""
    seen_until: float
    """Past this position they leave no state that is told apart."""

    def allows(self, uses: Sequence[int]) -> bool:
        """Whether so many operations were invoked in time to take effect in these layers, given in order."""
        if len(uses) > len(self.layers):
            return False
        return all(opened <= used for opened, used in zip(self.layers, uses, strict=False))


class Group(NamedTuple):
    """The operations of one kind that are open in a layer and will return."""

    kind: Kind
    mask: int
    bits: tuple[int, ...]
    """The first to return first."""
