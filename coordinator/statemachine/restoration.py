"""The state of a backup, made that of a new cluster: what a restore changes before the first entry of the new log.

Everything that was said behind the backup is undone, and whoever heard it must not take it for something of the new
log. So no number comes twice: tokens, sessions and sequences carry the higher restore epoch, and revisions go on far
above all that the old log may have reached (`INDICES_PER_EPOCH`). Changes and events up to there count as compacted:
whoever followed the old log reads anew. Sessions stay, with what they hold and where they wait, so that a lease that
its client can still prove keeps others out until it has run out; the wanted membership does not. Checkpoints do not
either: a keep-alive may have been answered behind the backup, and so a client may prove the whole of its lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands
from coordinator.statemachine.locks import EPOCH_MAX, INDEX_BITS
from coordinator.statemachine.wanted import Wanted

if TYPE_CHECKING:
    from coordinator.statemachine.state import State

LEVEL_MIN: Final = 2
"""Of the cluster that was backed up: below it, a log knows no epochs."""
INDICES_PER_EPOCH: Final = 1 << 30
"""How many entries a log may have got behind a backup of it, so that no revision of theirs comes again."""
FIRST_INDEX_MAX: Final = 1 << (INDEX_BITS - 1)
"""Half of all indices are left to the cluster that is restored."""


class NotRestorable(Exception):
    """This state can not become that of a cluster with this epoch; says what was expected, and what came."""


def first_index(state: State, last_backed_up: int, epoch: int) -> int:
    """Of the first entry of the restored cluster's log, of a state that was backed up after entry `last_backed_up`. Two
    restores of one backup, which differ in their epochs, stand apart. Raises NotRestorable."""
    if not state.cluster_id:
        raise NotRestorable("expected the state of a cluster, got one that no cluster had begun yet")
    if state.level < LEVEL_MIN:
        raise NotRestorable(f"expected a backup of a cluster of level {LEVEL_MIN} or above, got level {state.level}")
    if not state.epoch < epoch <= EPOCH_MAX:
        raise NotRestorable(f"expected an epoch above {state.epoch}, which the backup has, up to {EPOCH_MAX}: {epoch}")
    index = last_backed_up + (epoch - state.epoch) * INDICES_PER_EPOCH
    if index > FIRST_INDEX_MAX:
        raise NotRestorable(
            f"expected a first index up to {FIRST_INDEX_MAX}, got {index}: epoch {epoch} is "
            f"{epoch - state.epoch} above that of the backup, and each takes {INDICES_PER_EPOCH} indices"
        )
    return index


def epoch_max(epoch: int, last_backed_up: int) -> int:
    """The highest epoch in which a cluster can begin of a backup of `epoch`, made after entry `last_backed_up`."""
    return min(EPOCH_MAX, epoch + max(0, FIRST_INDEX_MAX - last_backed_up) // INDICES_PER_EPOCH)


def begin_anew(state: State, cluster_id: int, index: int) -> None:
    """Make it the state of the new cluster before its first entry, which comes behind `index` and raises its epoch."""
    assert index > state.applied, f"the new log begins behind {index}, the old one came to {state.applied}"
    state.cluster_id = cluster_id
    state.applied = index
    state.wanted = Wanted()
    for session in state.sessions.rows.values():
        session.remaining_ms = None
    state.history.compact(index)
    if state.level >= commands.LEVEL_OF_LOCK_EVENTS:
        state.lock_events.begin_anew(index)
    state.events = []
