"""How much work the state machine has done, in rows that it went over: what hosts and transactions are bounded by.

It is counted and not timed, so that what is refused for it is refused on every replica. What costs the same however
large the state is, as a point read, a put or a lock that nobody else wants, is not counted: the number of those is
bounded elsewhere.
"""

from __future__ import annotations

from typing import Final

CHANGE_ROWS: Final = 4
"""To delete a key, or to let go of a hold, takes as long as to go over so many rows."""
_UNBOUNDED: Final = 1 << 62


class TooManyRows(Exception):
    """A transaction is about to go over more rows than one may."""


class Work:
    """`rows` and `changes` only ever grow, and are no part of a snapshot: two looks differ by what was between them."""

    __slots__ = ("_rows_max", "changes", "deleted", "rows")

    def __init__(self) -> None:
        self.rows = 0
        """Keys, changes, events and holders that were gone over to answer something."""
        self.changes = 0
        """What was done in the lines of locks, and keys and holds that went together with others, by a range or by the
        end of a session; in rows, too. No transaction is refused for it."""
        self.deleted = 0
        """Keys that the transaction under way has deleted."""
        self._rows_max = _UNBOUNDED

    def ends(self, count: int) -> None:
        """So many keys or holds go together."""
        self.changes += CHANGE_ROWS * count

    def passes(self, places: int) -> None:
        """So many holders, or places in line, are gone over for a lock."""
        self.changes += places

    def goes_over(self, rows: int) -> None:
        """Ask before: a transaction that has no rows left for it ends here."""
        self.rows += rows
        if self.rows > self._rows_max:
            raise TooManyRows

    def begin(self, rows_max: int) -> None:
        """A transaction begins, and goes over so many rows at most."""
        self._rows_max = self.rows + rows_max
        self.deleted = 0

    def end(self) -> None:
        self._rows_max = _UNBOUNDED
