"""The one way into the audit: who, what, to what, why, and how it ended."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from django.db import DatabaseError

from coordinator.client import errors
from coordinator.database import asking
from coordinator.models import AuditEntry

log = logging.getLogger(__name__)

OPERATOR: Final = "operator (shell)"
"""The actor of management commands: whoever may run them may do anything here."""

TOKEN_CREATED: Final = "token.created"  # noqa: S105 - an action's name
PRINCIPAL_REMOVED: Final = "principal.removed"
ACCESS_CHANGED: Final = "access.changed"
NODE_CRASHED: Final = "node.crashed"
CLUSTER_REBUILT: Final = "cluster.rebuilt"
LOCK_BROKEN: Final = "lock.broken"
SIGNED_IN: Final = "signed-in"

REASON_CHARACTERS_MAX: Final = 2_000
_NO_TEXT: Final = {0: r"\x00"}
"""PostgreSQL takes it in no text."""


def _storable(said: Any) -> Any:
    """The same, with escapes for what some database takes for no text: else one such character in a reason would keep
    a change out of the audit. Lone surrogates are what Python makes of bytes from a shell that are no UTF-8."""
    if isinstance(said, str):
        return said.translate(_NO_TEXT).encode(errors="backslashreplace").decode()
    if isinstance(said, Mapping):
        return {_storable(name): _storable(value) for name, value in said.items()}
    if isinstance(said, (list, tuple)):
        return [_storable(each) for each in said]
    return said


def record(
    *,
    actor: str,
    action: str,
    target: str = "",
    principal: str = "",
    reason: str = "",
    details: Mapping[str, Any] | None = None,
    outcome: str = AuditEntry.Outcome.DONE,
) -> AuditEntry:
    """Add an entry. Details hold what JSON can, and never a secret."""
    return AuditEntry.objects.create(
        actor=_storable(actor)[:200],
        principal=_storable(principal)[:200],
        action=action,
        target=_storable(target)[:600],
        reason=_storable(reason)[:REASON_CHARACTERS_MAX],
        details=_storable(details or {}),
        outcome=outcome,
    )


def keep(**entry: Any) -> None:
    """`record` of what has happened already, whether there is a database or not: what that does not take goes into the
    log of this process, whole."""
    try:
        record(**entry)
    except DatabaseError as error:
        log.error("this could not be written to the audit: %s (%s)", json.dumps(entry), error)


akeep = asking(keep)
"""`keep` for the event loop."""


def outcome_of(error: Exception) -> AuditEntry.Outcome:
    """How the audit calls what ended with this."""
    if isinstance(error, errors.OutcomeUnknown):
        return AuditEntry.Outcome.UNKNOWN
    is_nobodys_word = isinstance(error, (errors.Unavailable, errors.Busy, errors.SessionGone))
    if isinstance(error, errors.ConclaveError) and not is_nobodys_word:
        return AuditEntry.Outcome.REFUSED
    return AuditEntry.Outcome.FAILED
