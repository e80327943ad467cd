"""Linearizable reads without a log entry: ReadIndex (thesis, section 6.4), batched over one round for all readers.

A read may be answered once (1) an entry of the leader's own term is committed, (2) a majority confirmed the leader in
a round sent after the read came, and (3) the state machine has applied what was committed when both held.

Where lease reads are switched on, a leader whose last confirmed round was sent within its lease may answer without (2):
every member that answered it then stays loyal to it for an election time-out. The lease ends for good in a term once
the leader has told anyone to campaign: the word may still arrive, even when the transfer was given up (history 2).

A follower asks the leader for the index and answers from its own state. Its question carries a number drawn at its
start and a ticket, which together never repeat: an answer from before a restart confirms nothing (history 5).

A leader that is a majority together with one follower may also leave the read to that one, its delegate, as it passes
on the read and its own commit index. A delegate that is still in the leader's term when it has that word is what (2)
asks for: a majority that had not gone on to a later term when the read came, so that nobody else had committed anything
by then. It may answer once (3) holds of its own state; the leader's second turn, and one of four messages, are spared.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from coordinator.consensus.engine import ConfirmedRead, Outgoing, Role
from coordinator.consensus.raft import changes
from coordinator.consensus.raft.messages import ReadRequest, ReadResponse

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft

ASKED_MAX: Final = 1_024
"""Questions of a follower that are not answered yet; the oldest are forgotten, and their readers ask again."""


class _Waiting(NamedTuple):
    """`asker` 0: this replica's own read; else a follower's, named by `boot` and `ticket`. `lease_ok`: the leader's
    lease will do."""

    round: int
    lease_ok: bool
    asker: int
    boot: int
    ticket: int


class Reads:
    def __init__(self, boot: int) -> None:
        self.boot = boot
        self._last_ticket = 0
        self._waiting: deque[_Waiting] = deque()  # Rounds ascend.
        self._asked: dict[int, None] = {}

    def next_ticket(self) -> int:
        """Tickets are local numbers, and go on over changes of role."""
        self._last_ticket += 1
        return self._last_ticket

    def add(self, current_round: int, *, lease_ok: bool) -> int:
        """A read came after round `current_round` was sent: only a later one can confirm it."""
        ticket = self.next_ticket()
        self._waiting.append(_Waiting(current_round + 1, lease_ok=lease_ok, asker=0, boot=0, ticket=ticket))
        return ticket

    def add_for(self, asker: int, request: ReadRequest, current_round: int) -> None:
        self._waiting.append(
            _Waiting(current_round + 1, lease_ok=False, asker=asker, boot=request.boot, ticket=request.ticket)
        )

    def asked(self, ticket: int) -> None:
        """This follower has asked the leader."""
        self._asked[ticket] = None
        while len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]

    def take_answer(self, response: ReadResponse) -> bool:
        """Is this the answer to an open question of this very start?"""
        if response.boot != self.boot or response.ticket not in self._asked:
            return False
        del self._asked[response.ticket]
        return True

    @property
    def are_waiting(self) -> bool:
        return bool(self._waiting)

    def needs_round(self, current_round: int) -> bool:
        """Does a read wait for a round that was not sent yet?"""
        return bool(self._waiting) and self._waiting[-1].round > current_round

    def take_by_lease(self) -> list[_Waiting]:
        """Reads for which the leader's lease will do."""
        taken = [waiting for waiting in self._waiting if waiting.lease_ok]
        if taken:
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.lease_ok)
        return taken

    def take(self, confirmed_round: int) -> list[_Waiting]:
        """Reads that round `confirmed_round` confirms."""
        taken = []
        while self._waiting and self._waiting[0].round <= confirmed_round:
            taken.append(self._waiting.popleft())
        return taken

    def drop(self) -> None:
        """Leadership is lost: nobody answers these."""
        self._waiting.clear()


def begin(raft: Raft, *, lease_ok: bool) -> int | None:
    """Ask for a read; its ticket. None where nobody is known who could confirm it, or this replica may not serve."""
    if not raft.is_fit:
        return None
    if raft.role is Role.LEADER:
        return raft.reads.add(raft.rounds.current, lease_ok=lease_ok)
    if raft.role is not Role.FOLLOWER or not raft.leader:
        return None
    ticket = raft.reads.next_ticket()
    raft.reads.asked(ticket)
    raft.late.append(Outgoing(raft.leader, ReadRequest(raft.term, raft.reads.boot, ticket)))
    return ticket


def on_request(raft: Raft, sender: int, request: ReadRequest) -> None:
    if raft.role is Role.LEADER and request.term == raft.term:
        raft.reads.add_for(sender, request, raft.rounds.current)


def on_response(raft: Raft, response: ReadResponse) -> None:
    if raft.reads.take_answer(response):
        raft.confirmed_reads.append(ConfirmedRead(response.ticket, response.read_index))


def delegate(raft: Raft, now_us: int) -> int:
    """The voter that this leader may leave reads to; 0 where there is none. Those that are chosen to be sent entries at
    once hear most from their leader (`spares.py`). Where lease reads are on, nobody need be asked."""
    spares = raft.spares
    if len(spares.chosen) != 1 or not spares.is_of(raft.configuration) or raft.options.lease_reads:
        return 0
    chosen = spares.chosen[0]
    may_leave = raft.may_answer and raft.is_fit and raft.transferring is None
    return chosen if may_leave and changes.answers(raft, chosen, now_us) else 0


def stands_in(raft: Raft, leader: int, term: int, read_index: int) -> bool:
    """`leader` left reads to this replica, in `term` and with `read_index` committed: may it answer them, as soon as it
    has applied up to there? The word may be a copy, or late: it is no sign of life of that leader."""
    if raft.role is not Role.FOLLOWER or raft.leader != leader or raft.term != term or not raft.is_fit:
        return False
    agreed_term, agreed_index = raft.agreed
    if agreed_term == term:
        raft.log.commit = max(raft.log.commit, min(read_index, agreed_index))
    return raft.log.commit >= read_index


def holds_lease(raft: Raft, now_us: int) -> bool:
    """Can nobody else have been elected up to now, by the clocks that `Options.lease_reads` assumes?"""
    options = raft.options
    lease_us = options.election_timeout_us_min - options.election_timeout_us_min // options.lease_drift_share
    return (
        options.lease_reads
        and not raft.lease_given_up
        and raft.rounds.confirmed > 0
        and now_us - raft.rounds.confirmed_at_us < lease_us
    )


def confirm_by_lease(raft: Raft, now_us: int) -> None:
    """Answer the reads for which the lease will do, while it holds."""
    if raft.options.lease_reads and holds_lease(raft, now_us):
        _answer(raft, raft.reads.take_by_lease())


def confirm(raft: Raft) -> None:
    """Answer the reads that a majority has confirmed: each at the commit index of now, no earlier one than that at
    which it came."""
    if raft.reads.are_waiting:
        _answer(raft, raft.reads.take(raft.rounds.confirmed))


def _answer(raft: Raft, confirmed: list[_Waiting]) -> None:
    for waiting in confirmed:
        if waiting.asker:
            answer = ReadResponse(raft.term, waiting.boot, waiting.ticket, raft.log.commit)
            raft.early.append(Outgoing(waiting.asker, answer))
        else:
            raft.confirmed_reads.append(ConfirmedRead(waiting.ticket, raft.log.commit))
