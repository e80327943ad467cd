"""Digests of the state machine, compared between replicas while they run (docs/design.md, rule 5). Pure.

Now and then the leader puts a mark into the log. Whoever applies it takes a digest of all of its state there, tells the
other replicas, and judges itself:

- most full voters have another digest, all the same one: this replica **differs**. It stops for good;
- somebody has another one, and it is not yet known whom the majority sides with: **in doubt**. It does not serve;
- else it **agrees**, and doubts of earlier marks are over once a majority has the same digest as it.

So one replica whose memory, disk or program went wrong stops, and the others go on; where no majority can tell which of
two states is right, none is served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from enum import Enum
from typing import Final, NamedTuple

from coordinator.consensus.quorum import majority

MARKS_MAX: Final = 4
"""The last marks are remembered; what is told of older ones, or far ahead, says nothing."""
HEARD_MAX: Final = 64
ASK_US: Final = 1_000_000
"""Those whose digest was not heard are asked again this often."""
ASK_TIMES_MAX: Final = 30


class Verdict(Enum):
    AGREES = "agrees"
    IN_DOUBT = "in doubt"
    DIFFERS = "differs"


class Due(NamedTuple):
    """Tell `receivers` that the digest after the entry `at` is `digest`, and ask for theirs."""

    receivers: tuple[int, ...]
    at: int
    digest: bytes


class Comparison:
    def __init__(self, replica: int, agreed: int = 0) -> None:
        self._replica = replica
        self._own: dict[int, bytes] = {}
        self._heard: dict[int, dict[int, bytes]] = {}
        """Index to replica to digest; of marks that this replica may not have applied yet too."""
        self._doubtful: int | None = None
        """The mark at which somebody differed, and no majority has confirmed this replica since."""
        self._differs: int | None = None
        self.agreed = agreed
        """The last mark at which a majority had the same digest as this replica; after a restart, its snapshot's."""
        self._ask_due_us = 0
        self._asked = 0
        """How often for the last mark."""
        self._in_vain = 0
        """How often since a majority last agreed, for whichever mark: once in ASK_US at the most."""
        self._in_vain_due_us = 0
        self.has_news = False
        """Something was marked or heard since the last judgement."""
        self.others_differ = False
        """Others differ at a mark of which this replica can say nothing."""

    def marked(self, index: int, digest: bytes, now_us: int) -> None:
        """This replica's own digest, after the mark at `index`."""
        self._own[index] = digest
        while len(self._own) > MARKS_MAX:
            del self._own[min(self._own)]
        for old in [old for old in self._heard if old < min(self._own)]:
            del self._heard[old]
        self._ask_due_us, self._asked = now_us, 0
        self.has_news = True

    def hear(self, sender: int, index: int, digest: bytes) -> None:
        """What another replica says of its state at `index`."""
        if self._own and index < min(self._own):
            return
        self._heard.setdefault(index, {})[sender] = digest
        self.has_news = True
        while len(self._heard) > HEARD_MAX:
            del self._heard[min(self._heard)]

    def own(self, index: int) -> bytes | None:
        """This replica's digest at `index`, where it remembers one."""
        return self._own.get(index)

    def is_due(self, now_us: int) -> bool:
        """Is it time to tell and to ask?"""
        return bool(self._own) and now_us >= self._ask_due_us and self._asked < ASK_TIMES_MAX

    def due(self, others: Collection[int], now_us: int) -> Due | None:
        """Whom to ask now: `others` that were not heard of the last mark."""
        if not self.is_due(now_us):
            return None
        self._ask_due_us = now_us + ASK_US
        self._asked += 1
        if now_us >= self._in_vain_due_us:
            self._in_vain_due_us = now_us + ASK_US
            self._in_vain += 1
        index = max(self._own)
        heard = self._heard.get(index, {})
        missing = tuple(replica for replica in others if self._asked == 1 or replica not in heard)
        return Due(missing, index, self._own[index]) if missing else None

    def judge(self, full_voters: Collection[int]) -> Verdict:
        """What to think of this replica's state, by all that was heard. Those of `full_voters` count, this one among
        them where it is one."""
        self.has_news = False
        needed = majority(len(full_voters))
        for index, own in sorted(self._own.items()):
            said = {replica: digest for replica, digest in self._heard.get(index, {}).items() if replica in full_voters}
            said.pop(self._replica, None)
            counts = Counter(said.values())
            if self._replica in full_voters:
                counts[own] += 1
            if any(count >= needed for digest, count in counts.items() if digest != own):
                self._differs = index
            elif counts[own] >= needed:
                if index > self.agreed:
                    self.agreed, self._in_vain = index, 0
                if self._doubtful is not None and self._doubtful <= index:
                    self._doubtful = None
            elif any(digest != own for digest in counts):
                self._doubtful = max(index, self._doubtful or 0)
        self.others_differ = any(
            index > self.agreed
            and index not in self._own
            and len({digest for replica, digest in digests.items() if replica in full_voters}) > 1
            for index, digests in self._heard.items()
        )
        if self._differs is not None:
            return Verdict.DIFFERS
        return Verdict.AGREES if self._doubtful is None else Verdict.IN_DOUBT

    def may_keep(self, index: int) -> bool:
        """May the state at `index`, the last mark or behind it, be put on disk as a snapshot? Not before a majority had
        the same at the last mark, or could not be asked for long, however many marks came meanwhile. So what is wrong
        with a state in memory alone is gone after a restart, a doubt comes again with the mark that is applied again,
        and who is in doubt has a snapshot that is right to give to whoever is to decide."""
        if self._doubtful is not None:
            return False
        last = max((mark for mark in self._own if mark <= index), default=0)
        return self.agreed >= last or max(self._asked, self._in_vain) >= ASK_TIMES_MAX

    @property
    def is_settled(self) -> bool:
        """Has a majority agreed with all that was marked here?"""
        return not self.has_news and self._doubtful is None and self.agreed >= max(self._own, default=0)

    @property
    def is_in_doubt(self) -> bool:
        return self._doubtful is not None

    @property
    def why(self) -> str:
        """The verdict in words; "" where this replica agrees."""
        if self._differs is not None:
            return (
                f"its state differed from that of most replicas after entry {self._differs}, so it stopped for good: "
                "it waits to be removed, and replaced by a new replica"
            )
        if self._doubtful is not None:
            return (
                f"another replica's state differs from its own after entry {self._doubtful}, and no majority has told "
                "yet which is right: it waits for the digests of the others, and serves nothing meanwhile"
            )
        return ""
