"""Which lost operations (those of unknown outcome) can help anyone, layer by layer."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.linearizability.kinds import Lost
from tests.linearizability.models import ANY_STATE, State


class Live(NamedTuple):
    """The lost operations that may take effect in some layer, one entry a kind, by what they are good for there."""

    unguarded: list[Lost]
    """Those that can leave a state which is told apart, and are legal in more than one state."""
    guarded: dict[State, list[Lost]]
    """Those that can leave a state which is told apart, by the only state in which they are legal."""
    past: list[Lost]
    past_count: int

    def leaving(self) -> Iterator[Lost]:
        """Those that leave no state which is told apart: they are good for leaving another, and nothing else."""
        return itertools.islice(self.past, self.past_count)


def live_by_layer(lost: Sequence[Lost], positions: Sequence[int]) -> list[Live]:
    """What is live in each layer, of which the positions of the returns are given."""
    opening: dict[int, list[int]] = {}
    for number, entry in enumerate(lost):
        opening.setdefault(entry.layers[0], []).append(number)
    active: dict[int, Lost] = {}
    ends: list[tuple[float, int]] = []
    past: list[Lost] = []
    live: list[Live] = []
    for index, position in enumerate(positions):
        changed = index == 0
        for number in opening.get(index, ()):
            active[number] = lost[number]
            heapq.heappush(ends, (lost[number].seen_until, number))
            changed = True
        while ends and ends[0][0] < position:
            past.append(active.pop(heapq.heappop(ends)[1]))
            changed = True
        live.append(_sorted(active, past) if changed else live[-1])
    return live


def _sorted(active: dict[int, Lost], past: list[Lost]) -> Live:
    unguarded: list[Lost] = []
    guarded: dict[State, list[Lost]] = {}
    for entry in active.values():
        guard = entry.kind.traits.guard
        if guard is ANY_STATE:
            unguarded.append(entry)
        else:
            guarded.setdefault(guard, []).append(entry)
    return Live(unguarded, guarded, past, len(past))
