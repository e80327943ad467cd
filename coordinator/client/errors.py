"""What can go wrong for a caller. One base, specific children; every message says what to do next where it can."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from coordinator.statemachine import commands, files, lock_commands
from coordinator.statemachine.commands import Holder

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")


class ConclaveError(Exception):
    """Base of everything that the client raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pools of processes hand errors on pickled; `__init__` takes what a message was made of."""
        return _as_it_was, (type(self), self.args, self.__dict__)


def or_of_its_message(build: Callable[Concatenate[E, P], None]) -> Callable[Concatenate[E, P], None]:
    """For the `__init__` of an error that says more than a message: it is made of its message alone, too, and has what
    its class has then. Celery hands on the error of a task so, by its class and `args` (a result in JSON)."""

    @wraps(build)
    def either(error: E, /, *said: P.args, **named: P.kwargs) -> None:
        if len(said) == 1 and isinstance(said[0], str) and not named:
            Exception.__init__(error, said[0])
        else:
            build(error, *said, **named)

    return either


def _as_it_was(kind: type[ConclaveError], args: tuple[Any, ...], said: dict[str, Any]) -> ConclaveError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(said)
    return error


def caused(error: E, cause: BaseException | None) -> E:
    """For `raise ... from cause`: mypyc leaves out what stands behind the `from`."""
    error.__cause__ = cause  # With it goes the context, of which a traceback would tell, too.
    return error


class InvalidRequest(ConclaveError, ValueError):
    """The request itself is wrong; asking again does not help."""


class Unavailable(ConclaveError):
    """No leader answered in time. A read or a keep-alive changed nothing; see OutcomeUnknown for the rest."""


class Closed(Unavailable):
    """The client was closed, and asks nothing any more."""

    @or_of_its_message
    def __init__(self) -> None:
        super().__init__("the client was closed")


class OutcomeUnknown(Unavailable):
    """A change was sent and no answer came in time, or its session is gone: it may have been applied, or may yet be.

    `session_gone`: the cluster itself said so, because the session of the request is gone; then it will not be applied
    any more.
    """

    session_gone = False


class ClosedUnanswered(Closed, OutcomeUnknown):
    """The client was closed while the answer to a change was out: it may have been applied, or may yet be."""

    @or_of_its_message
    def __init__(self) -> None:
        Unavailable.__init__(self, "the client was closed before an answer came: it may have been applied")


class Busy(ConclaveError):
    """There is no room for it. Nothing was applied, and nothing will be; ask again later.

    `retry_after`: in so many seconds it may be asked again. It is told at once where the leader had no room for the
    only copy that was ever sent, and where this client's own queue is full, so that nothing was sent. None: the
    cluster, or the principal, has as many of these as it may have, and somebody has to give one back first.

    That a refused copy is the only one rests on this: Redis gives a message that is published once to each subscriber
    once, and a node's mailbox has one. Whoever records the traffic and publishes it again (history 7) can still have
    such a request applied, until the same session's next request says that its number is over.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(ConclaveError):
    """Not done, as the cluster is now: the message says what stands in the way. Look again, and ask again."""


class Forbidden(ConclaveError):
    """The principal lacks the right. Nothing was applied."""


class NotFound(ConclaveError):
    """What was named does not exist."""


class Exists(ConclaveError):
    """There is such a file or directory already. Nothing was done."""


class WrongKind(ConclaveError):
    """A directory where a file was expected or the other way round, or a value that is no number. Nothing was done."""


class NotEmpty(ConclaveError):
    """A directory with something in it is deleted only recursively. Nothing was done."""


class TooMany(ConclaveError):
    """More than one request may touch, sort or read; the message says how many that is. Nothing was done."""


class Changed(ConclaveError):
    """The file is of another generation or instance than was expected; nothing was done. `revision`, `version` and
    `instance` are those of now."""

    revision = version = instance = 0

    @or_of_its_message
    def __init__(self, found: files.Mismatch) -> None:
        super().__init__(
            f"expected another generation or instance; the file is at generation {found.version} of instance "
            f"{found.instance}, written at revision {found.revision}"
        )
        self.revision = found.revision
        self.version = found.version
        self.instance = found.instance


class Compacted(ConclaveError):
    """That revision is not kept any more. `oldest` is the oldest that can be read: whoever follows changes reads anew
    what it follows, and goes on behind the revision of that."""

    oldest = 0

    @or_of_its_message
    def __init__(self, oldest: int) -> None:
        super().__init__(f"that revision is no longer kept; the oldest that can be read is {oldest}")
        self.oldest = oldest


class Aborted(ConclaveError):
    """A transaction did nothing, since the operation at `place` was refused; `cause` is that refusal. `place` is its
    number in the branch that was taken, then in the transaction that stands there, and so on."""

    place: tuple[int, ...] = ()
    cause: ConclaveError = ConclaveError("what refused it was not handed on")

    @or_of_its_message
    def __init__(self, place: tuple[int, ...], cause: ConclaveError) -> None:
        super().__init__(f"nothing was done, for operation {'.'.join(map(str, place))} was refused: {cause}")
        self.place = place
        self.cause = cause


class SessionGone(ConclaveError):
    """The session has expired or was closed, and everything that it held is let go. This request was not applied."""


class RequestCancelled(ConclaveError):
    """The request's own cancel reached the cluster first; it was not applied."""


class LockNotAcquired(ConclaveError):
    """The lock was not granted within the wait that was asked for. `holder` is who has it, where that is known."""

    name = ""
    holder: Holder | None = None

    @or_of_its_message
    def __init__(self, name: str, holder: Holder | None) -> None:
        who = f"held by {holder.principal} (session {holder.session})" if holder else "its holder is not known"
        super().__init__(f"lock {name!r} was not acquired in time; {who}")
        self.name = name
        self.holder = holder


class Deadlock(ConclaveError):
    """To wait would close a cycle of sessions that wait for one another. `cycle` tells it: each (session, name) waits
    for what the next one holds or stands in line for, the last one for the first, who is the caller."""

    cycle: tuple[tuple[int, str], ...] = ()

    @or_of_its_message
    def __init__(self, cycle: tuple[tuple[int, str], ...]) -> None:
        waits = ", ".join(f"session {session} waits for {name!r}" for session, name in cycle)
        super().__init__(f"to wait would be a deadlock: {waits}, and that is held by the first")
        self.cycle = cycle


class LeaseLost(ConclaveError):
    """The lease can not be proven held now: stop touching what it guards, or let the fencing token decide."""


class Broken(LeaseLost):
    """The lock was taken away by force: `by` whom (a principal), and for what `reason`."""

    name = by = reason = ""

    @or_of_its_message
    def __init__(self, broken: lock_commands.Break) -> None:
        super().__init__(f"lock {broken.name!r} was taken away by {broken.principal}: {broken.reason}")
        self.name = broken.name
        self.by = broken.principal
        self.reason = broken.reason


def says_that_the_session_is_gone(error: ConclaveError) -> bool:
    """Did the cluster itself say so? Then what was asked is not applied any more."""
    return isinstance(error, SessionGone) or (isinstance(error, OutcomeUnknown) and error.session_gone)


def from_failure(failure: commands.Failure) -> ConclaveError:
    """The exception for a refusal of the cluster."""
    kind = _BY_CODE.get(failure.code, ConclaveError)
    error = kind(failure.message)
    if isinstance(error, OutcomeUnknown):
        error.session_gone = failure.code == commands.OUTCOME_UNKNOWN
    return error


def refuse(result: Any) -> Any:
    """`result`, where it is no refusal; else the refusal is raised."""
    if type(result) not in REFUSALS:
        return result
    match result:
        case commands.Failure():
            raise from_failure(result)
        case files.Mismatch():
            raise Changed(result)
        case files.Compacted():
            raise Compacted(result.oldest)
        case lock_commands.Deadlock():
            raise Deadlock(tuple((wait.session, wait.name) for wait in result.cycle))
        case lock_commands.Broken():
            raise Broken(result.broken)
        case commands.Aborted():
            try:
                refuse(result.refusal)
            except ConclaveError as cause:
                raise Aborted(result.place, cause) from None
    raise AssertionError(f"{result!r} is no refusal")


REFUSALS: Final = frozenset(
    (
        commands.Failure,
        files.Mismatch,
        files.Compacted,
        lock_commands.Deadlock,
        lock_commands.Broken,
        commands.Aborted,
    )
)
"""The types of results that are refusals."""

_BY_CODE: dict[str, type[ConclaveError]] = {
    commands.SESSION_GONE: SessionGone,
    commands.OUTCOME_UNKNOWN: OutcomeUnknown,
    commands.FORBIDDEN: Forbidden,
    commands.INVALID: InvalidRequest,
    commands.NOT_FOUND: NotFound,
    commands.FULL: Busy,
    commands.EXISTS: Exists,
    commands.WRONG_KIND: WrongKind,
    commands.NOT_EMPTY: NotEmpty,
    commands.TOO_MANY: TooMany,
    commands.REFUSED: Refused,
    commands.CANCELLED: RequestCancelled,
    commands.ACKNOWLEDGED: OutcomeUnknown,
}
