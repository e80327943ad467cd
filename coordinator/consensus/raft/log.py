"""The replicated log of one replica, as memory holds it, and where its tail is not on disk yet.

Invariants: `commit <= last_index`; everything up to `commit` is never changed; entries from `unwritten` on are not
yet in the journal (`unwritten <= last_index + 1`). Terms and entries are two parallel lists, so that a million
entries cost the collector nothing.
"""

from __future__ import annotations

from typing import Final

from coordinator.consensus.entries import bytes_in

_SLICE_STEP: Final = 1_024


class Log:
    def __init__(
        self, terms: list[int], entries: list[bytes], commit: int, offset: int = 0, offset_term: int = 0
    ) -> None:
        """Entries as the journal held them, the first at `offset + 1`."""
        if len(terms) != len(entries):
            raise ValueError(f"{len(terms)} terms for {len(entries)} entries")
        commit = max(commit, offset)  # What a journal says of it may lag behind a snapshot.
        if not 0 <= commit <= offset + len(entries):
            raise ValueError(f"commit index {commit} lies outside the log ({offset}, {offset + len(entries)}]")
        self.offset = offset
        self.offset_term = offset_term
        self.terms = terms
        self.entries = entries
        self.commit = commit
        self.unwritten = self.last_index + 1

    @property
    def last_index(self) -> int:
        return self.offset + len(self.terms)

    @property
    def last_term(self) -> int:
        return self.terms[-1] if self.terms else self.offset_term

    def term_at(self, index: int) -> int | None:
        """None where the log does not hold `index` (compacted away, or not there yet)."""
        if index == self.offset:
            return self.offset_term
        position = index - self.offset - 1
        return self.terms[position] if 0 <= position < len(self.terms) else None

    def matches(self, index: int, term: int) -> bool:
        """The consistency check of AppendEntries (Raft, section 5.3)."""
        return self.term_at(index) == term

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Is a log that ends so at least as up to date as this one? (Raft, section 5.4.1)"""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, terms: list[int], entries: list[bytes]) -> None:
        self.terms += terms
        self.entries += entries

    def truncate(self, first_index: int) -> None:
        """Forget everything from `first_index` on, which conflicts with the leader's log."""
        assert first_index > self.commit, (
            f"asked to truncate committed entries from {first_index}, commit {self.commit}"
        )
        position = first_index - self.offset - 1
        del self.terms[position:]
        del self.entries[position:]
        self.unwritten = min(self.unwritten, first_index)

    def compact(self, offset: int) -> None:
        """Forget everything up to `offset`, which a snapshot holds."""
        if offset <= self.offset:
            return
        term = self.term_at(offset)
        assert term is not None, f"asked to compact up to {offset}, the log ends at {self.last_index}"
        assert offset <= self.commit, f"asked to compact up to {offset}, which is not committed ({self.commit})"
        assert offset < self.unwritten, f"asked to compact up to {offset}, which is not on disk"
        del self.terms[: offset - self.offset]
        del self.entries[: offset - self.offset]
        self.offset, self.offset_term = offset, term

    def install(self, index: int, term: int) -> bool:
        """Begin behind a snapshot that ends at `index`. A tail behind it is kept where it matches. True where the
        journal may keep its tail too: not where what is there was cut off in memory and not yet on disk."""
        keep_on_disk = self.matches(index, term) and self.unwritten > index
        if self.matches(index, term):
            position = index - self.offset
            del self.terms[:position]
            del self.entries[:position]
        else:
            self.terms.clear()
            self.entries.clear()
        self.offset, self.offset_term = index, term
        self.commit = max(self.commit, index)
        self.unwritten = self.unwritten if keep_on_disk else index + 1
        return keep_on_disk

    def slice(self, first_index: int, last_index: int, bytes_max: int) -> tuple[list[int], list[bytes]]:
        """Entries from `first_index` to `last_index`, cut at `bytes_max` but never below one entry. What it costs is in
        proportion to what it gives, not to what there is."""
        assert first_index > self.offset, f"asked for entry {first_index}, the log begins behind {self.offset}"
        start = first_index - self.offset - 1
        stop = last_index - self.offset
        entries = self.entries[start : min(stop, start + _SLICE_STEP)]
        size = bytes_in(entries)
        if size > bytes_max:
            del entries[_fitting(entries, bytes_max) or 1 :]
        while size <= bytes_max and start + len(entries) < stop:
            at = start + len(entries)
            step = self.entries[at : min(stop, at + _SLICE_STEP)]
            entries += step[: _fitting(step, bytes_max - size)]
            size += bytes_in(step)
        return self.terms[start : start + len(entries)], entries

    def rest(self, first_index: int) -> tuple[list[int], list[bytes]]:
        """Everything from `first_index` on."""
        start = first_index - self.offset - 1
        return self.terms[start:], self.entries[start:]

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """The largest index up to `index` whose term is at most `term`, with its term: logs may agree there."""
        index = min(index, self.last_index)
        while index > self.offset and self.terms[index - self.offset - 1] > term:
            index -= 1
        return index, self.term_at(index) or 0


def _fitting(entries: list[bytes], bytes_max: int) -> int:
    """How many of these, from the first on, have at most `bytes_max` together."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry)
        if size > bytes_max:
            return count
    return len(entries)
