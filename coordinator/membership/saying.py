"""What the reconciler says, in words for the page, the admin and the command line. Read from the database alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone

from coordinator.models import Cluster, Reconciliation

STALE_AFTER: Final = timedelta(seconds=90)
"""The reconciler writes down at least every 30 s that nothing has changed."""


def in_words(said: Reconciliation | None, now: datetime) -> str:
    """One line."""
    if said is None:
        return "the reconciler has not said anything of it yet"
    state = Reconciliation.State(said.state).label
    line = f"{state}: {said.message}" if said.message else state
    if now - said.looked_at > STALE_AFTER:
        line += f" (the reconciler has not looked since {said.looked_at:%Y-%m-%d %H:%M:%S} UTC: does it run?)"
    return line


def of(cluster: Cluster) -> Reconciliation | None:
    return Reconciliation.objects.filter(cluster=cluster).first()


def by_cluster() -> dict[str, str]:
    """Of each cluster by name, what is to be said where its membership is not as it is wanted; of several clusters that
    had a name, of the last. Raises DatabaseError."""
    now = timezone.now()
    found: dict[str, str] = {}
    for said in Reconciliation.objects.select_related("cluster").order_by("cluster__created_at"):
        quiet = said.state in {Reconciliation.State.SETTLED, Reconciliation.State.UNMANAGED}
        found[said.cluster.name] = "" if quiet else f"membership: {in_words(said, now)}"
    return found
