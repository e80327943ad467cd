"""The vocabulary of the namespace: its commands, queries and results. A part of `commands/`, which names them all.

Words: a *path* names a file or a directory; a *flat key* is a file that is written without regard to directories. The
*instance* of a file is the revision that created it, its *content generation* (`version`) counts its writes since
then. A *revision* is the index of the entry that made a change. What each does is in `docs/semantics.md`.
"""

from __future__ import annotations

from typing import Final, Literal

from coordinator.statemachine.structs import WireStruct

DEPTH_MAX: Final = 64
"""Components of a path that a tree command creates."""
CHILDREN_MAX: Final = 100_000
"""Of one directory, as far as tree commands create them."""
DELETED_MAX: Final = 4_096
"""Files and directories that one command deletes, in all the operations of a transaction together."""
SORTED_MAX: Final = 10_000
"""Keys of a range that is sorted by anything but its keys."""
PAGE_BYTES_MAX: Final = 1_048_576
"""Of the values of one page; the first has its place whatever its size."""
SCANNED_MAX: Final = 10_000
"""Changes that one page of changes goes over."""
COMPARES_MAX: Final = 128
OPERATIONS_MAX: Final = 128
"""Of one transaction, those of its branches together."""
NESTING_MAX: Final = 4
"""Transactions within one another, the outermost with them."""
READ_NESTING_MAX: Final = 128
"""The same, to be read at all. How deep a replica could read hangs on its Python, and on what calls it: were a command
of more one for some and none for others, they would have two states."""
TRANSACTION_READ_BYTES_MAX: Final = 65_536
"""Of what one transaction reads, as it is encoded in its result, which is kept until it is acknowledged."""
TRANSACTION_ROWS_MAX: Final = 20_000
"""Rows that one transaction goes over (`work.py`): all replicas do nothing else meanwhile."""
ANY_GENERATION: Final = -1

# --- commands -------------------------------------------------------------------------------------


class CreateFile(WireStruct, tag=20, frozen=True):
    """Create a file that does not exist, in a directory that does. `ephemeral`: it goes with the last session that is
    attached to it, at first `owner` (0: the request's own). `sequential`: 19 digits that only ever grow are put behind
    its name. `parents`: directories that are missing are made."""

    path: str
    value: bytes
    ephemeral: bool = False
    sequential: bool = False
    parents: bool = False
    owner: int = 0


class MakeDirectory(WireStruct, tag=21, frozen=True):
    """Make a directory that stays when it is empty. `parents`: also those above it, and no error if it is there."""

    path: str
    parents: bool = False


class WriteFile(WireStruct, tag=22, frozen=True):
    """Replace the content of a file that exists, where its content generation and its instance are these
    (ANY_GENERATION: whatever they are)."""

    path: str
    value: bytes
    generation: int = ANY_GENERATION
    instance: int = ANY_GENERATION


class DeletePath(WireStruct, tag=23, frozen=True):
    """Delete a file or a directory. A directory that is not empty only `recursive`, all that is below it with it."""

    path: str
    recursive: bool = False
    generation: int = ANY_GENERATION
    instance: int = ANY_GENERATION


class DeleteRange(WireStruct, tag=24, frozen=True):
    """Delete all of a range, as `ReadRange` names it."""

    start: str
    end: str = ""
    prefix: bool = False


class AddToKey(WireStruct, tag=25, frozen=True):
    """Add to a counter: a flat key whose value is a decimal number. One that is not there begins at 0."""

    key: str
    amount: int


class AttachFile(WireStruct, tag=26, frozen=True):
    """Let an ephemeral file live as long as `owner` does too (0: the request's own session)."""

    path: str
    owner: int = 0


class DetachFile(WireStruct, tag=27, frozen=True):
    """Let an ephemeral file no longer depend on `owner`. It goes with the last that is attached."""

    path: str
    owner: int = 0


class Compact(WireStruct, tag=28, frozen=True):
    """Give up the history up to `revision`, which stays the oldest that can be read."""

    revision: int


class BeginCaching(WireStruct, tag=29, frozen=True):
    """From here on the client of this session may keep what it reads (`coordinator/replica/caching.py`), until the
    session ends. That is in the log, so that a new leader knows whether its predecessor may have allowed it."""


Relation = Literal["=", "!=", "<", ">"]
Target = Literal[
    "value", "version", "instance", "revision", "lease", "lock", "lock-holder", "lock-generation", "acl-generation"
]
LEVEL_4_TARGETS: Final = ("lock-generation", "acl-generation")
"""A replica of an earlier level can not read an entry that names them."""


class Compare(WireStruct, frozen=True):
    """`target` of `key` stands in `relation` to `operand`: bytes for a value, else a number.

    Of a key that is not there every number is 0, and a comparison of its value does not hold. "lock-generation" and
    "acl-generation" are what its stat shows. "lease" is a session that
    the key is ephemeral with, "lock" the token under which the lock of that name is held, "lock-holder" a session
    that holds it; where there are several, it is enough that one stands in the relation.
    """

    key: str
    target: Target
    relation: Relation
    operand: bytes | int


# --- queries --------------------------------------------------------------------------------------


class ReadFile(WireStruct, tag=40, frozen=True):
    """The content and stat of a path, at `revision` (0: now)."""

    path: str
    revision: int = 0


class GetStat(WireStruct, tag=41, frozen=True):
    """The stat of a path, now."""

    path: str


SortBy = Literal["key", "value", "version", "instance", "revision"]


class ReadRange(WireStruct, tag=42, frozen=True):
    """Keys from `start` to before `end`; `end` "": `start` alone; `prefix`: all that begin with `start` (which may be
    "", for all), whatever `end` is. `after`: only those that come behind it, in the order that is asked for; so the
    next page comes behind the last key of the one before.

    The order is that of the paths, in which "/" comes before every other character. `limit` 0: as many as a page
    may have.
    """

    start: str
    end: str = ""
    prefix: bool = False
    revision: int = 0
    limit: int = 0
    sort_by: SortBy = "key"
    descending: bool = False
    keys_only: bool = False
    count_only: bool = False
    after: str = ""


class ListDirectory(WireStruct, tag=43, frozen=True):
    """What is directly in a directory ("" the root), by name, from the first after `after` (None: the first)."""

    path: str
    after: str | None = None
    limit: int = 100


class ReadChanges(WireStruct, tag=44, frozen=True):
    """Changes to a range (`start`, `end`, `prefix` as in `ReadRange`) in their order, from the revision `since` on (0:
    from now on), less the first `skip` changes of that revision, whatever they changed. `puts`, `deletes`: which kinds;
    `previous`: with what was there before."""

    start: str
    end: str = ""
    prefix: bool = False
    since: int = 0
    skip: int = 0
    limit: int = 0
    puts: bool = True
    deletes: bool = True
    previous: bool = False


class ReadStat(WireStruct, tag=70, frozen=True):
    """The stat of a path, as it was at `revision` (0: now)."""

    path: str
    revision: int = 0


class ReadDirectory(WireStruct, tag=71, frozen=True):
    """What was directly in a directory at `revision` (0: now), as `ListDirectory` tells it of now."""

    path: str
    revision: int = 0
    after: str | None = None
    limit: int = 100


# --- results --------------------------------------------------------------------------------------


class Created(WireStruct, tag=20, frozen=True):
    """`path` is the name it has, with the digits of a sequential one."""

    path: str
    revision: int


class Stat(WireStruct, tag=21, frozen=True):
    """`revision` is the index that wrote it last. `checksum` is the first 8 bytes of the content's BLAKE2b-64, as a
    number. `acl_generation` is the index that last changed what somebody may do. `sessions` are the first few that an
    ephemeral file lives with. A directory that only lies above files is implied: it has no numbers of its own."""

    path: str
    directory: bool
    children: int
    size: int = 0
    revision: int = 0
    version: int = 0
    instance: int = 0
    lock_generation: int = 0
    acl_generation: int = 0
    checksum: int = 0
    ephemeral: bool = False
    sessions: tuple[int, ...] = ()


class FileContent(WireStruct, tag=22, frozen=True):
    value: bytes
    stat: Stat


class Mismatch(WireStruct, tag=23, frozen=True):
    """Refused: the generation or the instance is another than was expected. These are the ones of now."""

    revision: int
    version: int
    instance: int


class Deleted(WireStruct, tag=24, frozen=True):
    """So many files and directories went."""

    revision: int
    count: int


class Counted(WireStruct, tag=25, frozen=True):
    """The counter's value after the addition."""

    value: int
    revision: int
    version: int


class KeyView(WireStruct, frozen=True):
    """`value` None: a directory, or keys alone were asked for."""

    key: str
    value: bytes | None
    revision: int
    version: int
    instance: int
    directory: bool = False
    ephemeral: bool = False


class RangeView(WireStruct, tag=26, frozen=True):
    """`count` is how many keys the range has, whatever the limit; `more`: there are more behind these. `revision` is
    the one that this is the state of."""

    keys: tuple[KeyView, ...]
    count: int
    revision: int
    more: bool = False


class ChildView(WireStruct, frozen=True):
    name: str
    directory: bool
    children: int
    size: int = 0
    revision: int = 0


class DirectoryList(WireStruct, tag=27, frozen=True):
    children: tuple[ChildView, ...]
    count: int
    revision: int
    more: bool = False


class ChangeView(WireStruct, frozen=True):
    """`after` None: it was deleted. `before` only where previous values were asked for, and there was one."""

    revision: int
    key: str
    after: KeyView | None
    before: KeyView | None = None


class ChangePage(WireStruct, tag=28, frozen=True):
    """Go on from (`since`, `skip`): nothing that was asked for lies before them that is not in this page or an earlier
    one. A page without changes is a progress mark."""

    changes: tuple[ChangeView, ...]
    since: int
    skip: int


class Compacted(WireStruct, tag=29, frozen=True):
    """Refused: that revision is no longer kept. `oldest` is the oldest that can be read; changes are kept from the one
    behind it on."""

    oldest: int
