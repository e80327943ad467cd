"""Who is there has a file that lives as long as its session: how it comes in, and goes where nobody waits for it."""

from __future__ import annotations

from coordinator.client.calls import Call
from coordinator.client.core import WITHDRAW_US_MAX, Core
from coordinator.client.errors import ConclaveError, refuse, says_that_the_session_is_gone
from coordinator.client.flows import Clock, Flow
from coordinator.client.session import Session
from coordinator.statemachine import files


def is_of(base: str, view: files.KeyView | None) -> bool:
    """Is it a file directly in the directory `base` (which ends with a slash)? What is further below is another's, as
    the members of `workers/eu` are none of `workers`."""
    return view is not None and not view.directory and "/" not in view.key[len(base) :]


def come_in(core: Core, clock: Clock, session: Session, op: files.CreateFile, deadline_us: int) -> Flow:
    """Create the file; what was Created. Where its asker leaves before that is known, the request goes on until it is,
    and then the file goes: that one alone, for another of this session may be there already."""
    asked = core.command(session, op, clock(), deadline_us)
    try:
        return refuse((yield asked))
    except ConclaveError:
        raise
    except BaseException:
        if asked.first_sent_us is None:
            core.abandon(asked)
            raise
        asked.background, asked.deadline_us = session, clock() + WITHDRAW_US_MAX

        def undo(done: Call) -> None:
            if isinstance(done.outcome, files.Created):
                go(core, clock, session, op.path)

        asked.when_done(undo)
        raise


def leave(core: Core, clock: Clock, session: Session, path: str, deadline_us: int) -> Flow:
    """True where it was there still."""
    return bool((yield from left_at(core, clock, session, path, deadline_us)))


def left_at(core: Core, clock: Clock, session: Session, path: str, deadline_us: int) -> Flow:
    """Go; the revision, or 0 where this session was not there: one by the same name may be another's."""
    if session.gone:
        return 0
    try:
        done = refuse((yield core.command(session, files.DetachFile(path), clock(), deadline_us)))
    except ConclaveError as error:
        if not says_that_the_session_is_gone(error):
            raise
        core.lose_session(session)
        return 0
    return done.index if done.existed else 0


def go(core: Core, clock: Clock, session: Session, path: str) -> None:
    """In the background: whether that session can be proven alive now or not, it may live."""
    if not session.gone:
        core.in_background(session, files.DetachFile(path), clock())
