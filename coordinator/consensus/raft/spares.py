"""Which followers are sent an entry at once, and which a moment later.

To commit, a majority is enough (Raft, section 5.3); as long as nothing fails, the others can wait (Lamport and Massa,
"Cheap Paxos", DSN 2004). Where the nodes share a machine, what one follower does for an entry is taken from all: so the
others, the spares, get what they lack many entries at a time: at moments that are `Options.spare_us` apart and the same
for all leaders of a node, where it is much or something has not been committed without them for as long; else with
the rounds that are for everyone, as heartbeats and those of reads are. The former are as seldom as a quiet cluster's:
who is chosen hears of the leader with each entry, and keeps a spare that hears too little from being elected.

What is committed is still on the disks of a majority, and a leader that sends less is one whose messages are late: no
rule of Raft knows of it. Chosen are those that campaign first where the leader's channel falls silent
(`elections.suspect`), for they have everything: as many of these as answer, lack little and are not late again and
again. Where there are too few, and in a leadership that nobody has answered yet, everyone is sent everything at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.consensus.engine import NEVER_US
from coordinator.consensus.membership import Configuration
from coordinator.consensus.raft.progress import Progress, ProgressState

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft

LATE_SHARE: Final = 4
"""Of a round that went to everyone, as many as are needed have answered; whoever answers later than `Options.spare_us`,
divided by this, behind them is late."""
LATE_MAX: Final = 4
"""Who was late so much more often than in time is not chosen."""
LATE_LONG: Final = 24
"""Nor again until it was in time about so much more often than late."""
FEW: Final = 16
"""Whoever lacks fewer entries, and all of these are committed, waits for the next round that goes to everyone."""

Targets = list[tuple[int, Progress]]


class Spares:
    """Of one leadership."""

    def __init__(self) -> None:
        self.due_us = NEVER_US
        """When those that wait are to be sent what they lack."""
        self._lacks_few = True
        """Does nobody of those that wait lack more than a few entries?"""
        self.needed = 0
        """So many of the others make a majority with the leader; 0: everyone is sent everything at once."""
        self.chosen: tuple[int, ...] = ()
        self.may_be_others = False
        """Is it to be seen who is to be chosen? After each round for everyone: a moment may not come for long."""
        self._configuration: Configuration | None = None
        """For which all this holds."""
        self.others: list[int] = []
        """The other voters, in the order in which they would campaign."""
        self._waits_since = self._waited_since = 0
        """The first round that somebody was left out of since the last of those moments, and since the one before."""
        self._shared_round = 0
        """The last round that went to all of them."""
        self._answers = 0
        self._enough_us = 0
        """How many have answered it, and when that were enough."""
        self._late: dict[int, int] = {}
        """How much more often one was late than in time, 0 at the least."""

    def follow(self, configuration: Configuration, replica: int) -> None:
        """Begin anew where the configuration is another. One that changes, or has witnesses, spares nobody: there more
        hangs on everyone's answer than the commit."""
        if configuration is self._configuration:
            return
        self._configuration = configuration
        self.others = configuration.heirs_of(replica)
        is_plain = not (configuration.is_joint or configuration.has_witness) and replica in configuration.voter_ids
        self.needed = len(configuration.voter_ids) // 2 if is_plain else 0
        self.chosen = ()
        self._late = {}

    def is_of(self, configuration: Configuration) -> bool:
        """Was it chosen by this one?"""
        return configuration is self._configuration

    def shared(self, number: int) -> None:
        """This round goes to everyone: nobody waits any more, and who is behind comes up with it."""
        self.due_us = NEVER_US
        self.may_be_others = True
        self._shared_round, self._answers = number, 0

    def wait(self, number: int, due_us: int, *, lacks_few: bool) -> None:
        """Somebody is left out of this round, up to then."""
        if self.due_us == NEVER_US:
            self._waited_since, self._waits_since = self._waits_since, number
        self.due_us = min(self.due_us, due_us)
        self._lacks_few = lacks_few

    def committed(self) -> None:
        """All that there is is committed: who lacks little of it may wait longer."""
        if self._lacks_few:
            self.due_us = NEVER_US

    def answered(self, voter: int, number: int, now_us: int, late_us: int) -> None:
        """Note who is late."""
        if number != self._shared_round or voter not in self.others:
            return
        self._answers += 1
        if self._answers == self.needed:
            self._enough_us = now_us
        late = self._late.get(voter, 0)
        if self._answers > self.needed and now_us - self._enough_us > late_us:
            self._late[voter] = LATE_LONG if late + 1 >= LATE_MAX else late + 1
        elif late:
            self._late[voter] = late - 1

    def choose(self, raft: Raft) -> None:
        """The first of those that would campaign that are fit for it, or nobody."""
        self.may_be_others = False
        fit = [voter for voter in self.others if self._is_fit(raft, voter)]
        fit.sort(key=lambda voter: self._late.get(voter, 0) >= LATE_MAX)  # Those who are late last.
        self.chosen = tuple(fit[: self.needed]) if len(fit) >= self.needed else ()

    def _is_fit(self, raft: Raft, voter: int) -> bool:
        """Does it lack little, and has it answered in this leadership, and since the moment before the last?"""
        progress = raft.progress[voter]
        return _lacks_little(raft, progress) and progress.acked_round >= max(1, self._waited_since)


def hold_back(raft: Raft, targets: Targets, now_us: int) -> Targets:
    """Those of `targets` that are to be sent what they lack now; the others wait."""
    spares, options = raft.spares, raft.options
    spares.follow(raft.configuration, raft.replica)
    if not (options.spare_us and spares.needed) or raft.transferring is not None:
        spares.due_us = NEVER_US
        return targets
    is_due = now_us >= spares.due_us
    if is_due or not spares.chosen:
        spares.choose(raft)
        spares.due_us = NEVER_US
    elif spares.may_be_others:
        spares.choose(raft)
    if is_due or not spares.chosen:
        return targets
    now = [(voter, progress) for voter, progress in targets if not _may_wait(raft, voter, progress)]
    if len(now) == len(targets):
        return targets
    lacks_few = all(_lag(raft, progress) < FEW for voter, progress in targets if _may_wait(raft, voter, progress))
    if not lacks_few or raft.log.commit < raft.log.last_index:
        moment_us = (now_us // options.spare_us + (2 if lacks_few else 1)) * options.spare_us
        spares.wait(raft.rounds.current + 1, moment_us, lacks_few=lacks_few)
    return now


def beats_seldom(raft: Raft) -> bool:
    """Do those that are chosen hear of the leader with each entry, and is nobody to be brought up by heartbeats?"""
    if not raft.spares.chosen or raft.transferring is not None:
        return False
    return all(progress.state is ProgressState.REPLICATE for progress in raft.progress.values())


def _may_wait(raft: Raft, voter: int, progress: Progress) -> bool:
    """Is it a voter that is not needed, and lacks little?"""
    spares = raft.spares
    return voter in spares.others and voter not in spares.chosen and _lacks_little(raft, progress)


def _lacks_little(raft: Raft, progress: Progress) -> bool:
    return progress.state is ProgressState.REPLICATE and _lag(raft, progress) <= raft.options.message_entries_max


def _lag(raft: Raft, progress: Progress) -> int:
    return raft.log.last_index - progress.match
