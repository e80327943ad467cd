"""Writes and deletions of a file that was written last at a revision: a compare-and-set that no restore makes hold by
chance.

A content generation counts the writes of one instance, and counts anew from an older state after a restore; a revision
is never used again (`docs/semantics.md`, "Restores"). Each is one transaction.
"""

from __future__ import annotations

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import Failure, Result, Transact


def unchanged(path: str, revision: int, op: files.WriteFile | files.DeletePath) -> Transact:
    """`op`, where what is at `path` was written last at `revision`; else what is there is looked at."""
    return Transact((files.Compare(path, "revision", "=", revision),), (op,), (files.ReadRange(path, keys_only=True),))


def outcome(path: str, result: Result) -> Result:
    """What `op` alone would have been answered."""
    if isinstance(result, commands.Aborted):
        return result.refusal
    if not isinstance(result, commands.Transacted):
        return result
    found = result.results[0]
    if result.succeeded:
        return found
    assert isinstance(found, files.RangeView), found
    if not found.keys:
        return Failure(commands.NOT_FOUND, f"there is no {path!r}")
    (view,) = found.keys
    return files.Mismatch(view.revision, view.version, view.instance)
