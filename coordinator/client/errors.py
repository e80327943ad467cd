"""What can go wrong for a caller. One base, specific children; every message says what to do next where it can."""

from __future__ import annotations

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Holder


class ConclaveError(Exception):
    """Base of everything that the client raises on purpose."""


class InvalidRequest(ConclaveError, ValueError):
    """The request itself is wrong; asking again does not help."""


class Unavailable(ConclaveError):
    """No leader answered in time. A read or a keep-alive changed nothing; see OutcomeUnknown for the rest."""


class OutcomeUnknown(Unavailable):
    """A change was sent and no answer came in time, or its session is gone: it may have been applied, or may yet be.

    `session_gone`: the cluster itself said so, because the session of the request is gone; then it will not be applied
    any more.
    """

    session_gone = False


class Busy(ConclaveError):
    """The cluster has as many of what was asked for as it may have. Nothing was applied; ask again later."""


class Refused(ConclaveError):
    """Not done, as the cluster is now: the message says what stands in the way. Look again, and ask again."""


class Forbidden(ConclaveError):
    """The principal lacks the right. Nothing was applied."""


class NotFound(ConclaveError):
    """What was named does not exist."""


class SessionGone(ConclaveError):
    """The session has expired or was closed, and everything that it held is let go. This request was not applied."""


class RequestCancelled(ConclaveError):
    """The request's own cancel reached the cluster first; it was not applied."""


class LockNotAcquired(ConclaveError):
    """The lock was not granted within the wait that was asked for. `holder` is who has it, where that is known."""

    def __init__(self, name: str, holder: Holder | None) -> None:
        who = f"held by {holder.principal} (session {holder.session})" if holder else "its holder is not known"
        super().__init__(f"lock {name!r} was not acquired in time; {who}")
        self.name = name
        self.holder = holder


class LeaseLost(ConclaveError):
    """The lease can not be proven held now: stop touching what it guards, or let the fencing token decide."""


def from_failure(failure: commands.Failure) -> ConclaveError:
    """The exception for a refusal of the cluster."""
    kind = _BY_CODE.get(failure.code, ConclaveError)
    error = kind(failure.message)
    if isinstance(error, OutcomeUnknown):
        error.session_gone = failure.code == commands.OUTCOME_UNKNOWN
    return error


_BY_CODE: dict[str, type[ConclaveError]] = {
    commands.SESSION_GONE: SessionGone,
    commands.OUTCOME_UNKNOWN: OutcomeUnknown,
    commands.FORBIDDEN: Forbidden,
    commands.INVALID: InvalidRequest,
    commands.NOT_FOUND: NotFound,
    commands.FULL: Busy,
    commands.REFUSED: Refused,
    commands.CANCELLED: RequestCancelled,
    commands.ACKNOWLEDGED: OutcomeUnknown,
}
