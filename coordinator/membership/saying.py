"""What the reconciler says, in words for the page, the admin and the command line. Read from the database alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.utils import timezone

from coordinator.membership.note import Note
from coordinator.models import Cluster, Reconciliation

STALE_AFTER: Final = timedelta(seconds=90)
"""The reconciler writes down at least every 30 s that nothing has changed."""
QUIET: Final = frozenset({Reconciliation.State.SETTLED, Reconciliation.State.UNMANAGED})


def is_stale(said: Reconciliation, now: datetime) -> bool:
    """Whether it has not looked for long. One that runs writes soon after a clock is put back, too."""
    return abs(now - said.looked_at) > STALE_AFTER


def in_words(said: Reconciliation | None, now: datetime) -> str:
    """One line."""
    if said is None:
        return "the reconciler has not said anything of it yet"
    state = Reconciliation.State(said.state).label
    line = f"{state}: {said.message}" if said.message else state
    if is_stale(said, now):
        since = f"{said.looked_at:%Y-%m-%d %H:%M:%S} UTC"
        line += f" (the reconciler has not looked since {since}: does it run? And can it write to the database?)"
    return line


def current() -> list[Reconciliation]:
    """What was said last of each cluster that is looked after. What is older than the newest by more than STALE_AFTER
    is of a cluster that no node hosts any more. Raises DatabaseError."""
    found = [*Reconciliation.objects.select_related("cluster").order_by("cluster_id")]
    newest = max((said.looked_at for said in found), default=None)
    return [said for said in found if newest is not None and newest - said.looked_at <= STALE_AFTER]


class Figures(NamedTuple):
    """For metrics. `looked_at`: when the reconciler last said anything, in seconds since 1970. `as_wanted`: by the name
    of a cluster, whether there is nothing to do."""

    looked_at: float
    as_wanted: dict[str, bool]


def figures() -> Figures | None:
    """None where nothing has been said yet. Raises DatabaseError."""
    found = current()
    if not found:
        return None
    looked_at = max(said.looked_at for said in found).timestamp()
    return Figures(looked_at, {said.cluster.name: said.state in QUIET for said in found})


def of(cluster: Cluster) -> Reconciliation | None:
    return Reconciliation.objects.filter(cluster=cluster).first()


def by_cluster() -> dict[str, Note]:
    """Of each cluster by name; of several clusters that had a name, of the one that was recorded last, by the order of
    the rows: a clock may have gone back in between. That all is as it is wanted is no news while it is looked after.
    Raises DatabaseError."""
    now = timezone.now()
    found: dict[str, Note] = {}
    for said in Reconciliation.objects.select_related("cluster").order_by("cluster_id"):
        quiet = said.state in QUIET
        refused = said.state == Reconciliation.State.REFUSED
        found[said.cluster.name] = (
            Note() if quiet and not is_stale(said, now) else Note(f"membership: {in_words(said, now)}", refused)
        )
    return found
