"""The record: what the log said when somebody last looked, and who did what through the web tier.

Nothing is decided here (rule 1). Membership, locks, principals and rights live in the log; rows are made from what it
says (`coordinator/record.py`) and may be lost, late or older than it without harm. So rows are never a reason to remove
anything (rule 10), and nothing that needs the truth reads them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.exceptions import PermissionDenied
from django.db import models
from django.utils import timezone


class Cluster(models.Model):
    """A replicated log and its state machine. One that is made again under an old name is another, with another id."""

    name = models.CharField(max_length=63, db_index=True)
    cluster_id = models.CharField(
        "identity", max_length=16, unique=True, help_text="Random, in hex; given at birth and never used again."
    )
    created_at = models.DateTimeField("first recorded", default=timezone.now)

    class Meta:
        ordering = ("name", "-created_at")
        permissions: ClassVar[list[Any]] = [
            ("read_state", "Can read keys and locks of clusters"),
            ("write_keys", "Can write and delete keys of clusters"),
            ("use_locks", "Can acquire locks of clusters"),
            ("administer", "Can administer clusters: principals, tokens, fault injection"),
        ]

    def __str__(self) -> str:
        return self.name


class Node(models.Model):
    """A Celery worker that hosts replicas."""

    name = models.CharField(max_length=63, unique=True)
    address = models.CharField(
        max_length=255, blank=True, default="", help_text="The Redis that holds its mailbox; empty where all share one."
    )
    zone = models.CharField(
        max_length=63, blank=True, default="", help_text="What fails together with it; replicas are spread over zones."
    )
    first_seen = models.DateTimeField(default=timezone.now)
    last_seen = models.DateTimeField(default=timezone.now, help_text="When a report of it last reached the record.")
    retired_at = models.DateTimeField(
        "retired",
        null=True,
        blank=True,
        help_text="Since when an operator answers for it that nothing of it ever runs again. Empty once it reports.",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Replica(models.Model):
    """One member of one cluster, on one node. One that lost its disk comes back as a new replica, with a new row."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="replicas")
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="replicas")
    replica_id = models.CharField("identity", max_length=16, help_text="Random, in hex, as its journal holds it.")
    role = models.CharField(max_length=16, blank=True, default="", help_text="As it last reported.")
    term = models.PositiveBigIntegerField(default=0)
    applied_index = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField("first recorded", default=timezone.now)
    updated_at = models.DateTimeField("last report", default=timezone.now)

    class Meta:
        ordering = ("cluster", "node", "-updated_at")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=("cluster", "replica_id"), name="conclave_replica_identity")
        ]

    def __str__(self) -> str:
        return f"{self.cluster} on {self.node}"


class WantedMembership(models.Model):
    """What the membership of a cluster is to be, as its administrators last said it (`coordinator/membership`).

    The log holds the same text under the same generation: rows that are behind it are refused, and made again from it.
    """

    cluster = models.OneToOneField(Cluster, on_delete=models.PROTECT, related_name="wanted_membership")
    generation = models.PositiveBigIntegerField()
    wanted = models.TextField(help_text="JSON, byte for byte as the log holds it.")
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "wanted membership"
        verbose_name_plural = "wanted memberships"

    def __str__(self) -> str:
        return f"{self.cluster}, generation {self.generation}"


class Birth(models.Model):
    """A cluster that is being made, or was: written down before any node is asked, so that whoever is cut off goes on.

    `members` is the document that all of its nodes get, byte for byte the same: what the nodes drew, never changed.
    `left_out`: nodes of an earlier list, which may have an empty replica of it."""

    cluster_id = models.CharField("identity", max_length=16, unique=True)
    name = models.CharField(max_length=63, db_index=True)
    nodes = models.JSONField(default=list)
    left_out = models.JSONField(default=list, db_default=[], blank=True)
    members = models.JSONField(default=list, blank=True)
    epoch = models.PositiveIntegerField(null=True, blank=True)
    fingerprint = models.CharField(max_length=64, blank=True, default="")
    begun_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-begun_at",)
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=("name",), condition=models.Q(finished_at=None), name="conclave_birth_under_way"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.cluster_id})"


class Reconciliation(models.Model):
    """What the reconciler last did for a cluster, or waits for. Written by it alone."""

    class State(models.TextChoices):
        SETTLED = "settled", "as wanted"
        MOVING = "moving", "being changed"
        WAITING = "waiting", "waiting"
        REFUSED = "refused", "refused"
        UNMANAGED = "unmanaged", "nothing is wanted"

    cluster = models.OneToOneField(Cluster, on_delete=models.PROTECT, related_name="reconciliation")
    state = models.CharField(max_length=16, choices=State.choices)
    message = models.TextField(blank=True, default="")
    looked_at = models.DateTimeField(default=timezone.now)
    since = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.cluster}: {self.state}"


class AuditEntry(models.Model):
    """Who did what to what, why, and how it ended. Written once by `coordinator/audit.py` and never changed."""

    class Outcome(models.TextChoices):
        DONE = "done", "done"
        REFUSED = "refused", "refused"
        FAILED = "failed", "failed"
        UNKNOWN = "unknown", "outcome unknown"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.CharField(max_length=200, help_text="The person or program that asked.")
    principal = models.CharField(
        max_length=200, blank=True, default="", help_text="Whose rights in the log it was done with."
    )
    action = models.CharField(max_length=64, db_index=True)
    target = models.CharField(max_length=600, blank=True, default="")
    reason = models.TextField(blank=True, default="", help_text="In the actor's own words.")
    details = models.JSONField(default=dict, blank=True)
    outcome = models.CharField(max_length=16, choices=Outcome.choices, default=Outcome.DONE)

    class Meta:
        ordering = ("-at", "-id")
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target}".rstrip()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises PermissionDenied for an entry that is there already: the audit is only ever added to."""
        if not self._state.adding:
            raise PermissionDenied("an audit entry is never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Raises PermissionDenied, always."""
        raise PermissionDenied("an audit entry is never deleted")
