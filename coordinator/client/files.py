"""Files and directories: what is in the namespace, by its tree and by ranges, now and at a revision.

What each operation guarantees, and how it is refused, is in `docs/semantics.md`. Paths may begin with one slash, which
is stripped; where a directory is named, "" or "/" is the root, and a slash at the end does no harm.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from coordinator.client import conditional, flows, options
from coordinator.client.asking import DEFAULT_TTL_MS, Ask, Asking, Async, Part, S, Sync, as_it_is, asked
from coordinator.client.core import Core
from coordinator.client.errors import refuse
from coordinator.client.events import EventWatch, FailOver
from coordinator.client.watches import Follow, Watch, range_of
from coordinator.statemachine import commands, files
from coordinator.statemachine.files import ChangeView, KeyView


class Files(Part[S]):
    """`client.files`."""

    # --- one file ---------------------------------------------------------------------------------

    @asked
    def create(
        self,
        path: str,
        value: bytes = b"",
        *,
        ephemeral: bool = False,
        sequential: bool = False,
        parents: bool = False,
        ttl: float = options.DEFAULT_TTL_S,
        timeout: float | None = None,
    ) -> Ask[files.Created]:
        """Create a file that is not there, in a directory that is; its path and revision.

        `ephemeral`: it goes with this client's session for `ttl`, unless other sessions attached themselves;
        `sequential`: 19 digits that only ever grow are put behind its name; `parents`: directories that are missing are
        made. Raises Exists, NotFound (no such directory), WrongKind.
        """
        op = files.CreateFile(
            options.name(path),
            options.key_value(value),
            ephemeral=ephemeral,
            sequential=sequential,
            parents=parents,
        )
        return self._command(op, as_it_is, ttl=ttl, timeout=timeout)

    @asked
    def read(self, path: str, *, revision: int = 0, timeout: float | None = None) -> Ask[files.FileContent]:
        """The content (`value`) and the `stat` of a file, at `revision` (0: now). Raises NotFound, WrongKind,
        Compacted."""
        query = files.ReadFile(options.name(path), options.revision(revision))
        if revision:
            return self._query(query, as_it_is, timeout=timeout)
        return self._kept_read(query, as_it_is, timeout=timeout)

    @asked
    def stat(self, path: str, *, revision: int = 0, timeout: float | None = None) -> Ask[files.Stat]:
        """The stat of a file or a directory, at `revision` (0: now). Raises NotFound, Compacted."""
        if options.revision(revision):
            return self._query(files.ReadStat(options.name(path), revision), as_it_is, timeout=timeout)
        return self._kept_read(files.GetStat(options.name(path)), as_it_is, timeout=timeout)

    @asked
    def write(
        self,
        path: str,
        value: bytes,
        *,
        generation: int | None = None,
        instance: int | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> Ask[int]:
        """Replace the content of a file that is there; the revision. `generation` (the stat's `version`), `instance`,
        or `revision` (that wrote it last): only where they are these, else Changed is raised and tells those of now.
        A revision never comes again, not even after a restore, as a generation may; it takes the right to read, too.
        Raises NotFound, WrongKind."""
        op = files.WriteFile(
            options.name(path), options.key_value(value), options.generation(generation), options.generation(instance)
        )
        return self._where(op, revision, lambda done: int(done.index), timeout)

    def _where(
        self,
        op: files.WriteFile | files.DeletePath,
        revision: int | None,
        read: Callable[[Any], int],
        timeout: float | None,
    ) -> Ask[int]:
        if revision is None:
            return self._command(op, read, timeout=timeout)
        command = conditional.unchanged(op.path, options.revision(revision), op)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[int]:
            result = yield from flows.command(core, clock, command, DEFAULT_TTL_MS, deadline_us, "")
            return read(refuse(conditional.outcome(op.path, result)))

        return Ask(flow)

    @asked
    def delete(
        self,
        path: str,
        *,
        recursive: bool = False,
        generation: int | None = None,
        instance: int | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> Ask[int]:
        """Delete a file or a directory; how much went. A directory with something in it only if `recursive`, and then
        with all that is below, in one revision. `generation`, `instance` and `revision` as in `write`. Raises NotFound,
        NotEmpty, Changed, TooMany."""
        op = files.DeletePath(
            options.name(path), recursive, options.generation(generation), options.generation(instance)
        )
        return self._where(op, revision, lambda deleted: int(deleted.count), timeout)

    @asked
    def attach(self, path: str, *, ttl: float = options.DEFAULT_TTL_S, timeout: float | None = None) -> Ask[None]:
        """Let an ephemeral file live as long as this client's session for `ttl` does too."""
        return self._command(files.AttachFile(options.name(path)), lambda _: None, ttl=ttl, timeout=timeout)

    @asked
    def detach(self, path: str, *, ttl: float = options.DEFAULT_TTL_S, timeout: float | None = None) -> Ask[None]:
        """Let an ephemeral file no longer depend on this client's session for `ttl`. It goes with the last one."""
        return self._command(files.DetachFile(options.name(path)), lambda _: None, ttl=ttl, timeout=timeout)

    # --- directories ------------------------------------------------------------------------------

    @asked
    def make_directory(self, path: str, *, parents: bool = False, timeout: float | None = None) -> Ask[int]:
        """Make a directory that stays when it is empty; the revision. `parents`: also those above it, and no error if
        it is there. Raises Exists, NotFound, WrongKind."""
        op = files.MakeDirectory(options.directory(path), parents)
        return self._command(op, lambda created: int(created.revision), timeout=timeout)

    @asked
    def list_directory(
        self,
        path: str = "",
        *,
        revision: int = 0,
        after: str | None = None,
        limit: int = 100,
        timeout: float | None = None,
    ) -> Ask[files.DirectoryList]:
        """A page of what is directly in a directory, by name, from the first after `after`, at `revision` (0: now);
        `count` is how much there is, `more` says whether something follows. Raises NotFound, WrongKind, Compacted."""
        query = _listing(directory_name(path), options.revision(revision), after, options.limit(limit))
        return self._query(query, as_it_is, timeout=timeout)

    @asked
    def children(self, path: str = "", *, revision: int = 0, timeout: float | None = None) -> Ask[list[str]]:
        """The names of all that is directly in a directory, page after page, at `revision`; 0: now, and what comes or
        goes meanwhile may be missing or named."""
        name, then = directory_name(path), options.revision(revision)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[list[str]]:
            names: list[str] = []
            while True:
                query = _listing(name, then, names[-1] if names else None, commands.LIST_LIMIT_MAX)
                page = refuse((yield core.query(query, clock(), deadline_us)))
                names += [child.name for child in page.children]
                if not page.more:
                    return names

        return Ask(flow)

    # --- ranges -----------------------------------------------------------------------------------

    @asked
    def read_range(
        self,
        start: str,
        end: str = "",
        *,
        prefix: bool = False,
        revision: int = 0,
        limit: int = 0,
        sort_by: files.SortBy = "key",
        descending: bool = False,
        keys_only: bool = False,
        after: str = "",
        timeout: float | None = None,
    ) -> Ask[files.RangeView]:
        """A page of a range: from `start` to before `end`, or all that begin with `start` (`prefix`), at `revision` (0:
        now). `count` is how many keys it has in all; where `more` is set the next page comes behind `after` = the last
        key, at the revision that this one says. Raises Compacted, TooMany."""
        query = files.ReadRange(
            *range_of(start, end, prefix=prefix),
            revision=options.revision(revision),
            limit=options.limit_or_all(limit),
            sort_by=options.sort_by(sort_by),
            descending=descending,
            keys_only=keys_only,
            after=options.name(after) if after != "" else "",
        )
        return self._query(query, as_it_is, timeout=timeout)

    def scan(self, start: str, end: str = "", *, prefix: bool = False, revision: int = 0) -> Scan[S]:
        """Every key of a range, at one revision, read page by page as it is iterated over."""
        return Scan(self._shell, *range_of(start, end, prefix=prefix), options.revision(revision))

    @asked
    def count(
        self, start: str, end: str = "", *, prefix: bool = False, revision: int = 0, timeout: float | None = None
    ) -> Ask[int]:
        """How many keys a range has."""
        query = files.ReadRange(
            *range_of(start, end, prefix=prefix), revision=options.revision(revision), keys_only=True, count_only=True
        )
        return self._query(query, lambda view: int(view.count), timeout=timeout)

    @asked
    def delete_range(
        self, start: str, end: str = "", *, prefix: bool = False, timeout: float | None = None
    ) -> Ask[int]:
        """Delete all keys of a range in one revision; how many went. Raises TooMany."""
        op = files.DeleteRange(*range_of(start, end, prefix=prefix))
        return self._command(op, lambda deleted: int(deleted.count), timeout=timeout)

    @asked
    def compact(self, revision: int, *, timeout: float | None = None) -> Ask[None]:
        """Give up the history up to `revision`, which stays the oldest that can be read. Takes the right to
        administer."""
        return self._command(files.Compact(options.revision(revision)), lambda _: None, timeout=timeout)

    # --- changes ----------------------------------------------------------------------------------

    def watch(
        self,
        start: str,
        end: str = "",
        *,
        prefix: bool = False,
        since: int = 0,
        skip: int = 0,
        puts: bool = True,
        deletes: bool = True,
        previous: bool = False,
    ) -> Watch[S]:
        """The changes to a range from the revision `since` on (0: from now on), for ever: see `Watch`."""
        query = files.ReadChanges(
            *range_of(start, end, prefix=prefix),
            since=options.revision(since),
            skip=options.revision(skip),
            puts=puts,
            deletes=deletes,
            previous=previous,
        )
        return Watch(self._shell, query)

    def events(
        self,
        start: str,
        end: str = "",
        *,
        prefix: bool = False,
        since: int = 0,
        skip: int = 0,
        puts: bool = True,
        deletes: bool = True,
        previous: bool = False,
    ) -> EventWatch[S, ChangeView | FailOver]:
        """What `watch` tells, and between the changes each FailOver to another leader: see `EventWatch`."""
        query = self.watch(
            start, end, prefix=prefix, since=since, skip=skip, puts=puts, deletes=deletes, previous=previous
        ).query
        return EventWatch(self._shell, query, _change_or_failover)

    def follow(self, start: str, end: str = "", *, prefix: bool = False) -> Follow[S]:
        """What a range holds, and then what becomes of it, for ever: see `Follow`."""
        return Follow(self._shell, *range_of(start, end, prefix=prefix))


def _change_or_failover(event: object) -> ChangeView | FailOver:
    assert isinstance(event, (ChangeView, FailOver))
    return event


class Scan(Part[S]):
    """The keys of a range in their order, at one revision. `revision` is known from the first page on."""

    def __init__(self, shell: S, start: str, end: str, prefix: bool, revision: int) -> None:
        super().__init__(shell)
        self.revision = revision
        self._range = (start, end, prefix)
        self._page: list[KeyView] = []
        """What was read and not taken yet, the next one last."""
        self._after = ""
        self._is_done = False

    @asked
    def _more(self) -> Ask[files.RangeView]:
        return self._query(files.ReadRange(*self._range, revision=self.revision, after=self._after), as_it_is)

    def _take(self, page: files.RangeView) -> None:
        self.revision, self._is_done = page.revision, not page.more
        self._page = [*reversed(page.keys)]
        if page.keys:
            self._after = page.keys[-1].key

    def __iter__(self: Scan[Sync]) -> Iterator[KeyView]:
        while self._page or not self._is_done:
            if self._page:
                yield self._page.pop()
            else:
                self._take(self._more())

    async def __aiter__(self: Scan[Async]) -> AsyncIterator[KeyView]:
        while self._page or not self._is_done:
            if self._page:
                yield self._page.pop()
            else:
                self._take(await self._more())


def _listing(directory: str, revision: int, after: str | None, limit: int) -> files.ListDirectory | files.ReadDirectory:
    """Of now as nodes of every version know it."""
    if revision:
        return files.ReadDirectory(directory, revision, after, limit)
    return files.ListDirectory(directory, after, limit)


def directory_name(path: str) -> str:
    """A directory's name as the cluster keeps it: "" is the root. Raises InvalidRequest."""
    bare = path.rstrip("/") if isinstance(path, str) else path
    return "" if bare == "" else options.name(bare)
