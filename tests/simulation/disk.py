"""Disks, and the journals that node processes keep on them: what `commit` promised stays, whatever happens next.

A disk outlives its processes. A journal (`ports.Journal`) is one process's handle on it; it can be told to die before,
within or after the next commit, to fail it, or to take long over it. A commit is all or nothing, as SQLite's is: of one
that was torn by a crash either everything is there or nothing, and nobody was told which.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from coordinator.consensus.engine import HardState, Snapshot
from coordinator.replica import ports
from coordinator.replica.ports import Head, JournalFailed, Write
from coordinator.replica.stored import StoredLog

FSYNC_US_MIN: Final = 120
FSYNC_US_MAX: Final = 400


class ProcessDied(BaseException):
    """The process ends here, as `kill -9` or the loss of power ends it: nothing after this point happens."""


class DiskDamaged(Exception):
    """What the disk holds is not what was written, and its checksum says so."""


def flipped(data: bytes, share: float) -> bytes:
    """The same with one bit flipped; `share`, 0 to 1, says where."""
    at = min(int(share * len(data)), len(data) - 1)
    return b"%b%c%b" % (data[:at], data[at] ^ 1 << at % 8, data[at + 1 :])


class Stored(NamedTuple):
    """What a process finds when it starts."""

    replica: int
    log: StoredLog


NOTHING: Final = Stored(0, StoredLog(HardState(0, 0, 0), [], []))
"""A new disk."""


class Disk:
    """One replica's durable state; `replica` 0: empty, as a new disk is."""

    def __init__(self, stored: Stored) -> None:
        self.damaged = False
        self.full = False
        self.put(stored)

    def put(self, stored: Stored) -> None:
        """Hold this and nothing else."""
        log = stored.log
        self.replica = stored.replica
        self.hard_state = log.hard_state
        self.terms = [*log.terms]
        self.entries = [*log.entries]
        self.offset = log.offset
        self.offset_term = log.offset_term
        self._keep_snapshot(log.snapshot)
        self.agreed = log.agreed
        self.stopped = log.stopped

    @property
    def last_index(self) -> int:
        return self.offset + len(self.terms)

    @property
    def last_term(self) -> int:
        return self.terms[-1] if self.terms else self.offset_term

    def term_at(self, index: int) -> int | None:
        """None where the disk does not hold it."""
        if index == self.offset:
            return self.offset_term
        position = index - self.offset - 1
        return self.terms[position] if 0 <= position < len(self.terms) else None

    def wipe(self) -> None:
        """Lose everything. What comes back is a new disk (docs/design.md, rule 4)."""
        self.put(NOTHING)

    def load(self) -> Stored | None:
        """What is there; None on an empty disk. Raises DiskDamaged."""
        if self.damaged:
            raise DiskDamaged("a bit has flipped")
        if _checksum(self.snapshot) != self._checksum:
            raise DiskDamaged("a byte of its snapshot has flipped")
        if self.replica == 0:
            return None
        log = StoredLog(
            self.hard_state,
            [*self.terms],
            [*self.entries],
            self.offset,
            self.offset_term,
            self.snapshot,
            self.stopped,
            self.agreed,
        )
        return Stored(self.replica, log)

    def write(self, write: Write) -> None:
        """What the real journal does with it (`coordinator/replica/journal.py`)."""
        assert write.replica == self.replica, f"{write.replica} writes to the disk of {self.replica}"
        if write.head is not None:
            self._put_head(write.head)
        if write.entries:
            keep = write.first_index - 1 - self.offset
            assert 0 <= keep <= len(self.terms), f"a gap: entries from {write.first_index} behind {self.last_index}"
            self.terms[keep:] = write.terms
            self.entries[keep:] = write.entries
        self.hard_state = write.hard_state
        self.stopped = write.stopped or self.stopped

    def _put_head(self, head: Head) -> None:
        if head.staged is not None:
            assert isinstance(head.staged, Staging), "a snapshot is staged by the journal that is to take it"
            assert head.staged.is_done, "a snapshot is on disk before the journal names it"
            assert not head.staged.given_up, "what was given up is not there"
            assert head.staged.snapshot is head.snapshot, "the file that is named is another snapshot's"
        gone = head.offset - self.offset if head.keep_tail else len(self.terms)
        del self.terms[:gone]
        del self.entries[:gone]
        self.offset, self.offset_term = head.offset, head.offset_term
        self._keep_snapshot(head.snapshot)
        self.agreed = head.agreed

    def _keep_snapshot(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self._checksum = _checksum(snapshot)
        self.snapshot_flipped = False

    def flip_snapshot(self, share: float) -> bool:
        """A byte of the snapshot changes; False where there is none. `share`, 0 to 1, says where."""
        if self.snapshot is None or not self.snapshot.data:
            return False
        self.snapshot = self.snapshot._replace(data=flipped(bytes(self.snapshot.data), share))
        self.snapshot_flipped = True
        return True


def _checksum(snapshot: Snapshot | None) -> int:
    return 0 if snapshot is None else zlib.crc32(bytes(snapshot.data))


def _nobody_asks() -> None:
    """Of what befell."""


STAGING_LOOKS_MAX: Final = 12


class Staging:
    """A snapshot on its way to a disk, beside the loop: a file that is whole after some looks, if the disk has room. It
    dies with the process, and nothing is left of it that the journal does not name."""

    def __init__(self, disk: Disk, snapshot: Snapshot, looks: int) -> None:
        self.snapshot = snapshot
        self.failed = ""
        self.given_up = False
        self._disk = disk
        self._looks_left = looks

    @property
    def is_done(self) -> bool:
        if self._disk.full and self._looks_left:
            self.failed = "no space left on the disk"
        if not self.failed:
            self._looks_left = max(0, self._looks_left - 1)
        return not self.failed and self._looks_left == 0

    def give_up(self) -> None:
        self.given_up = True


class Journal(ports.Journal):
    """A process's handle on its disk (`ports.Journal`)."""

    def __init__(
        self,
        disk: Disk,
        random: Random,
        *,
        passes: Callable[[int], None],
        journaled: Callable[[Write], None],
        has_sent: Callable[[], bool],
        slower_us: int,
    ) -> None:
        """`passes` lets time pass within the turn, in microseconds; `journaled` is told what is on disk now; `has_sent`
        says whether this turn has sent anything so far. `slower_us`: so much longer takes every commit."""
        self._disk = disk
        self._slower_us = slower_us
        self._random = random
        self._passes = passes
        self._journaled = journaled
        self._has_sent = has_sent
        self._fate = ""
        self._befell: Callable[[], None] = _nobody_asks
        self.slow_us = 0
        """How much longer a commit takes for now."""
        self.commits = 0
        self.took_us = 0
        """How long the last commit took; 0: it took a snapshot too, or this turn had none."""

    def doom(self, fate: str, befell: Callable[[], None]) -> None:
        """Let something befall the next commit: "before", "within" or "after" (the process dies there), "behind a send"
        (it dies before the next commit of a turn that has sent something), "fail" (the fsync fails, and nobody knows
        what is on disk). `befell` is told when it does."""
        self._fate, self._befell = fate, befell

    def spare(self) -> None:
        """Nothing is to befall it any more."""
        self._fate = ""

    def commit(self, writes: list[Write]) -> None:
        self.commits += 1
        fate = self._fate
        if fate == "behind a send" and not self._has_sent():
            fate = ""
        elif fate:
            self._fate = ""
        if fate in ("before", "behind a send"):
            self._befell()
            raise ProcessDied(f"{'behind an early send, ' if self._has_sent() else ''}before the journal's commit")
        if self._disk.full:
            raise JournalFailed("no space left on the disk")
        took_us = FSYNC_US_MIN + int(self._random.random() * (FSYNC_US_MAX - FSYNC_US_MIN))
        took_us += self._slower_us + self.slow_us
        self._passes(took_us)
        self.took_us = 0 if any(write.head is not None for write in writes) else took_us
        if fate in ("within", "fail") and self._random.random() < 0.5:
            self._end(fate)
        for write in writes:
            self._disk.write(write)
            self._journaled(write)
        if fate:
            self._end(fate)

    def stage(self, replica: int, snapshot: Snapshot) -> Staging:
        """Put a snapshot on disk while the loop goes on (`coordinator/replica/snapshot_files.py`)."""
        assert replica == self._disk.replica, f"{replica} stages a snapshot on the disk of {self._disk.replica}"
        return Staging(self._disk, snapshot, 1 + int(self._random.random() * STAGING_LOOKS_MAX))

    def _end(self, fate: str) -> None:
        self._befell()
        if fate == "fail":
            raise JournalFailed("the fsync failed")
        raise ProcessDied(f"{fate} the journal's commit")
