"""Paths: their order, their parents, and the spans of keys that requests name.

In the order of paths "/" comes before every other character, so that all that is below a directory follows it directly.
No name holds a control character, and so U+0000 can stand for "/" and U+0001 for the end of what is below.
"""

from __future__ import annotations

from typing import NamedTuple

from coordinator.statemachine import commands, files


def path_order(path: str) -> str:
    """What paths are compared by."""
    return path.replace("/", "\0")


def parent_of(path: str) -> str:
    """The directory that `path` is in; "" is the root."""
    return path.rpartition("/")[0]


def path_problem(path: str) -> str | None:
    """Why `path` can not be made by a tree command; None where it can."""
    problem = commands.name_problem(path)
    if problem is not None:
        return problem
    depth = path.count("/") + 1
    if depth > files.DEPTH_MAX:
        return f"a path has at most {files.DEPTH_MAX} components, this one has {depth}"
    if path.endswith("/") or "//" in path:
        return "no component of a path is empty"
    return None


class Span(NamedTuple):
    """Ranks (`path_order`) from `start` to before `end`; None: to the last."""

    start: str
    end: str | None

    def holds(self, path: str) -> bool:
        rank = path_order(path)
        return self.start <= rank and (self.end is None or rank < self.end)

    def within(self, prefix: str) -> bool:
        """Does everything in it begin with `prefix`?"""
        whole = prefixed(prefix)
        return self.start >= whole.start and (whole.end is None or (self.end is not None and self.end <= whole.end))


def subtree(path: str) -> Span:
    """`path` and all that is below it; "": everything."""
    rank = path_order(path)
    return Span(rank, rank + "\1") if path else Span("", None)


def prefixed(prefix: str) -> Span:
    """All that begins with `prefix`."""
    rank = path_order(prefix)
    return Span(rank, _behind(rank))


def span_of(start: str, end: str, prefix: bool) -> Span:
    """As `files.ReadRange` names it. Empty where it ends before it begins."""
    if prefix:
        return prefixed(start)
    if not end:
        rank = path_order(start)
        return Span(rank, rank + "\0")
    return Span(path_order(start), path_order(end))


def behind(span: Span, after: str, *, descending: bool) -> Span:
    """What of the span comes behind `after`."""
    rank = path_order(after)
    if descending:
        return Span(span.start, rank if span.end is None else min(span.end, rank))
    return Span(max(span.start, rank + "\0"), span.end)


def _behind(rank: str) -> str | None:
    """The lowest rank behind all that begin with `rank`; None where there is none."""
    rank = rank.rstrip("\U0010ffff")
    return rank[:-1] + chr(ord(rank[-1]) + 1) if rank else None
