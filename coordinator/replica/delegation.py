"""Reads that a leader leaves to its delegate, and that one's side of it.

Who may be the delegate, and why it may answer, is in `consensus/raft/reads.py`. Here is what lies around it: what a
leader keeps until the delegate has said that it took it, and answers itself where that word stays away; and what a
delegate was left, up to the state that it is to be answered from. The word is seldom: one for many reads.

Only queries are left to others, and of these none that asks what a leader alone counts (`machine.OF_THE_LEADER`): no
keep-alive, nothing that waits. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import msgspec
from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.consensus.engine import NEVER_US, Engine, Outgoing
from coordinator.replica.callers import Caller
from coordinator.replica.reads import Read, Waiting
from coordinator.replica.stamps import Stamp, Stamps
from coordinator.statemachine.machine import OF_THE_LEADER, Machine

READS_OF_WORD_MAX: Final = 256
LEFT_BYTES_MAX: Final = 2_048
"""A longer request stays with the leader: what goes to the delegate lies between entries and votes."""
LEFT_OF_TURN_MAX: Final = 2_048
"""So many are left in one turn."""
LATE_US: Final = 25_000
"""A leader answers itself what its delegate has not taken by then."""
PAUSE_US: Final = 1_000_000
"""So long a leader leaves nothing to a delegate that was late or declined: it may be gone, or of an older version."""
TAKEN_US: Final = 5_000
"""After so long at the latest a delegate says what it took: its leader keeps that until then."""
TAKEN_MAX: Final = 64
"""Words of a leader that one word of a delegate answers."""


def may_be_left(request: object) -> bool:
    """Is it a query that any replica can answer from its state?"""
    return type(request) is wire.QueryRequest and type(request.query) not in OF_THE_LEADER


class Leaving(NamedTuple):
    """Reads that are to be left, and their requests as they are encoded; and the others."""

    reads: list[Read]
    encoded: list[bytes]
    kept: list[Read]


def sort_out(reads: list[Read]) -> Leaving:
    """What a delegate would take: no more than it may be sent in one turn, and nothing of a token that is not known
    here, which it may know."""
    left = Leaving([], [], [])
    for read in reads:
        if (
            may_be_left(read.request)
            and len(left.reads) < LEFT_OF_TURN_MAX
            and not read.stamp.principal.startswith(wire.FOR_TOKEN)
        ):
            encoded = wire.encode(read.request)
            if len(encoded) <= LEFT_BYTES_MAX:
                left.reads.append(read)
                left.encoded.append(encoded)
                continue
        left.kept.append(read)
    return left


class _Batch(NamedTuple):
    delegate: int
    sent_us: int
    reads: list[Read]


class Left:
    """A leader's: what it left to its delegate and has not been told of yet."""

    def __init__(self) -> None:
        self.number = 0
        """Of the last word."""
        self.count = self.count_back = 0
        """Reads that were ever left, and those that the leader had to answer after all."""
        self._open: dict[int, _Batch] = {}
        self._back: list[Read] = []
        self._words: list[Outgoing] = []
        self._trusts_from_us = 0

    def trusts(self, now_us: int) -> bool:
        """May anything be left to anyone now?"""
        return now_us >= self._trusts_from_us

    @property
    def has_back(self) -> bool:
        """Are there reads that the leader is to answer itself?"""
        return bool(self._back)

    @property
    def is_open(self) -> bool:
        return bool(self._open or self._back)

    @property
    def due_us(self) -> int:
        """When the leader is to look what is late."""
        if not self._open:
            return NEVER_US
        return next(iter(self._open.values())).sent_us + LATE_US

    def leave(self, delegate: int, term: int, read_index: int, leaving: Leaving, now_us: int) -> None:
        """Leave these to `delegate`, with `read_index` committed in `term`."""
        self.count += len(leaving.reads)
        for start in range(0, len(leaving.reads), READS_OF_WORD_MAX):
            part = slice(start, start + READS_OF_WORD_MAX)
            self.number += 1
            self._open[self.number] = _Batch(delegate, now_us, leaving.reads[part])
            questions = _questions(leaving.reads[part], leaving.encoded[part])
            self._words.append(Outgoing(delegate, wire.LeftReads(term, self.number, read_index, questions)))

    @property
    def has_words(self) -> bool:
        return bool(self._words)

    def take_words(self) -> list[Outgoing]:
        words, self._words = self._words, []
        return words

    def hear(self, sender: int, said: wire.ReadsTaken, now_us: int) -> list[Read]:
        """Those that the leader is rid of. `said` is of its own term."""
        over: list[Read] = []
        for number in said.taken:
            over += self._pop(sender, number)
        for number in said.declined:
            self._give_back(self._pop(sender, number), now_us)
        return over

    def look(self, now_us: int) -> None:
        """Take back what is late."""
        while now_us >= self.due_us:
            number = next(iter(self._open))
            self._give_back(self._open.pop(number).reads, now_us)

    def take_back(self) -> list[Read]:
        """Reads that the leader is to answer itself."""
        back, self._back = self._back, []
        return back

    def take_all(self) -> list[Read]:
        """The leadership is over."""
        reads = [read for batch in self._open.values() for read in batch.reads] + self._back
        self._open, self._back, self._words, self._trusts_from_us = {}, [], [], 0
        return reads

    def _pop(self, sender: int, number: int) -> list[Read]:
        batch = self._open.get(number)
        if batch is None or batch.delegate != sender:
            return []
        del self._open[number]
        return batch.reads

    def _give_back(self, reads: list[Read], now_us: int) -> None:
        if reads:
            self._back += reads
            self.count_back += len(reads)
            self._trusts_from_us = now_us + PAUSE_US


def _questions(reads: list[Read], encoded: list[bytes]) -> list[wire.Questions]:
    by_caller: dict[Caller, list[msgspec.Raw]] = {}
    last: Caller | None = None
    for read, request in zip(reads, encoded, strict=True):
        if read.caller is not last:
            last = read.caller
            requests = by_caller.setdefault(last, [])
        requests.append(msgspec.Raw(request))
    # On the wire what is encoded already looks as what is encoded there.
    return [
        wire.Questions(caller.channel, caller.token_id, cast("list[wire.QueryRequest]", asked))
        for caller, asked in by_caller.items()
    ]


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Delegate:
    """A follower's: what its leader left to it."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self._heard: list[tuple[int, wire.LeftReads]] = []
        self._leader = (0, 0)
        """To whom, and in which term, it is still to be said what was taken."""
        self._taken: list[int] = []
        self._declined: list[int] = []
        self._due_us = NEVER_US

    @property
    def has_heard(self) -> bool:
        """Was anything left to this replica in this turn?"""
        return bool(self._heard)

    @property
    def has_ready(self) -> bool:
        """Are there reads that it is to answer?"""
        return self.waiting.has_ready

    @property
    def due_us(self) -> int:
        """When it is to be said what was taken; NEVER_US where there is nothing to be said."""
        return self._due_us

    def hear(self, leader: int, said: wire.LeftReads) -> None:
        self._heard.append((leader, said))

    def learn(self, engine: Engine) -> None:
        """Of what was heard in this turn, learn what is committed. After the journal has the turn's term and entries,
        before anything is applied."""
        for leader, said in self._heard:
            engine.stands_in(leader, said.term, said.read_index)

    def judge(self, engine: Engine, machine: Machine, stamps: Stamps, now_us: int, *, serves: bool) -> None:
        """Take what was heard in this turn where it can be answered from what is applied, else decline it: a leader
        answers sooner than one that has much to apply. A leader of the past is owed no word."""
        heard, self._heard = self._heard, []
        for leader, said in heard:
            if said.term < engine.term:
                continue
            if self._leader != (leader, said.term):
                self._leader, self._taken, self._declined = (leader, said.term), [], []
            may_answer = serves and engine.stands_in(leader, said.term, said.read_index)
            reads = None
            if may_answer and engine.applied_index >= said.read_index:
                reads = self._reads_of(said, machine, stamps, now_us)
            if reads is None:
                self._declined.append(said.number)
            else:
                self.take(leader, said, reads)
            self._due_us = min(self._due_us, now_us + TAKEN_US)

    def take(self, leader: int, said: wire.LeftReads, reads: list[Read]) -> None:
        """What `leader` said is true, and this replica answers it."""
        self.waiting.add_ready(reads)
        self._taken.append(said.number)

    def _reads_of(self, said: wire.LeftReads, machine: Machine, stamps: Stamps, now_us: int) -> list[Read] | None:
        """As they would be, had they come here; each is counted. None where this replica can not tell whose one is, or
        has no room: then all of them are the leader's."""
        reads: list[Read] = []
        for channel, token_id, requests in said.reads:
            known = machine.key_of(token_id)
            if known is None:
                return self._none_of(reads)
            caller = Caller(channel, token_id, known[1])
            own = stamps.own(caller)
            for request in requests:
                stamp = stamps.acting(own, request.act_for) if own is not None and request.act_for else own
                if not (isinstance(stamp, Stamp) and may_be_left(request)):
                    return self._none_of(reads)
                read = Read(caller, request, stamp, now_us, said.read_index)
                if not self.waiting.takes(read):
                    return self._none_of(reads)
                reads.append(read)
        return reads

    def _none_of(self, reads: list[Read]) -> list[Read] | None:
        """They are not counted any more."""
        for read in reads:
            self.waiting.over(read)
        return None

    def take_words(self, now_us: int) -> list[Outgoing]:
        """What was taken, where it is time to say it; what was declined, at once."""
        if not self._declined and now_us < self._due_us and len(self._taken) < TAKEN_MAX:
            return []
        leader, term = self._leader
        word = wire.ReadsTaken(term, self._taken, self._declined)
        self._taken, self._declined, self._due_us = [], [], NEVER_US
        return [Outgoing(leader, word)] if word.taken or word.declined else []

    def take_all(self) -> list[Read]:
        """They are not to be answered here. Each is still counted."""
        return self.waiting.take_all_ready()
