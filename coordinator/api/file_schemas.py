"""The shapes of files, ranges, changes and transactions. Values are base64 in JSON, since they are bytes; where a value
comes in, `text` may be given in its place."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from ninja import Schema
from pydantic import Field, model_validator

from coordinator.api.errors import Refused
from coordinator.api.schemas import SessionName, StrictIn, Text, name_in_path, session_name, session_number
from coordinator.statemachine import commands, files

GENERATION_MAX = 2**63 - 1

Generation = Annotated[
    int, Field(ge=-1, le=GENERATION_MAX, description="Only where the content generation is this; -1: any.")
]
Instance = Annotated[int, Field(ge=-1, le=GENERATION_MAX, description="Only where the instance is this; -1: any.")]
Revision = Annotated[int, Field(ge=0, le=GENERATION_MAX, description="The state at this revision; 0: now.")]


class ValueIn(StrictIn):
    """Bytes: as base64 (`value`), or as they are written in UTF-8 (`text`)."""

    value: str | None = Field(None, description="Base64.")
    text: Text | None = Field(None, description="Instead of `value`: written as UTF-8.")

    @model_validator(mode="after")
    def _one_of_two(self) -> ValueIn:
        if self.value is not None and self.text is not None:
            raise ValueError("expected `value` or `text`, not both")
        if self.value is not None:
            try:
                base64.b64decode(self.value, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("expected base64 in `value`") from None
        return self

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.value) if self.value is not None else (self.text or "").encode()


def named(name: str) -> str:
    """A name in a body. Raises Refused."""
    return name_in_path(name)


def prefix_or_name(start: str, *, prefix: bool) -> str:
    """The beginning of a range. Raises Refused."""
    return "" if prefix and start in ("", "/") else name_in_path(start)


def range_named(start: str, end: str, *, prefix: bool) -> tuple[str, str, bool]:
    """A range as the cluster takes it. Raises Refused."""
    return prefix_or_name(start, prefix=prefix), end and name_in_path(end), prefix


def text_of(value: bytes | None) -> str | None:
    """As JSON has it."""
    return None if value is None else base64.b64encode(value).decode()


# --- files ----------------------------------------------------------------------------------------


class StatOut(Schema):
    path: str
    directory: bool
    children: int = Field(description="How much is directly in it.")
    size: int
    revision: int = Field(description="The log index that wrote it last; 0 of an implied directory.")
    version: int = Field(description="The content generation: how often it was written since it is there.")
    instance: int = Field(description="The revision that created it.")
    lock_generation: int = Field(description="The fencing token under which its name last went from free to held.")
    acl_generation: int = Field(description="The log index that last changed what somebody may do.")
    checksum: str = Field(description="The first 8 bytes of the content's BLAKE2b-64, in hex.")
    ephemeral: bool
    sessions: list[str] = Field(description="The first few sessions that it lives with.")

    @classmethod
    def of(cls, stat: files.Stat) -> StatOut:
        return cls(
            path=stat.path,
            directory=stat.directory,
            children=stat.children,
            size=stat.size,
            revision=stat.revision,
            version=stat.version,
            instance=stat.instance,
            lock_generation=stat.lock_generation,
            acl_generation=stat.acl_generation,
            checksum=f"{stat.checksum:016x}",
            ephemeral=stat.ephemeral,
            sessions=[session_name(session) for session in stat.sessions],
        )


class CreatedOut(Schema):
    path: str = Field(description="Its name, with the digits of a sequential one.")
    revision: int


class WrittenOut(Schema):
    path: str
    revision: int = Field(description="The log index that wrote it.")


class DeletedOut(Schema):
    deleted: int = Field(description="How many files and directories went.")
    revision: int


class AttachIn(StrictIn):
    path: str = Field(description="An ephemeral file.")
    session: SessionName


class AttachedOut(Schema):
    path: str
    session: str
    revision: int
    was_attached: bool = Field(description="Whether the file depended on this session before.")


class CompactIn(StrictIn):
    revision: int = Field(ge=0, le=GENERATION_MAX, description="The oldest that is still to be readable.")


class CompactedOut(Schema):
    oldest: int = Field(description="The oldest revision that can be read; changes are kept from the one behind it on.")


class ChildOut(Schema):
    name: str
    directory: bool
    children: int
    size: int
    revision: int


class DirectoryOut(Schema):
    children: list[ChildOut] = Field(description="What is directly in it, by name.")
    count: int = Field(description="How much that is in all.")
    revision: int = Field(description="The state that this is of.")
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")

    @classmethod
    def of(cls, page: files.DirectoryList) -> DirectoryOut:
        children = [
            ChildOut(
                name=child.name,
                directory=child.directory,
                children=child.children,
                size=child.size,
                revision=child.revision,
            )
            for child in page.children
        ]
        following = page.children[-1].name if page.more else None
        return cls(children=children, count=page.count, revision=page.revision, next=following)


# --- ranges and changes ---------------------------------------------------------------------------


class KeyOut(Schema):
    key: str
    value: str | None = Field(description="Base64; null of a directory, or where keys alone were asked for.")
    revision: int
    version: int
    instance: int
    directory: bool
    ephemeral: bool

    @classmethod
    def of(cls, view: files.KeyView) -> KeyOut:
        return cls(
            key=view.key,
            value=text_of(view.value),
            revision=view.revision,
            version=view.version,
            instance=view.instance,
            directory=view.directory,
            ephemeral=view.ephemeral,
        )


class RangeOut(Schema):
    keys: list[KeyOut]
    count: int = Field(description="How many keys the range has in all.")
    revision: int = Field(description="The state that this is of: ask for the next page at this revision.")
    more: bool = Field(description="Whether there are more; the next page comes behind `after` = the last key.")

    @classmethod
    def of(cls, view: files.RangeView) -> RangeOut:
        return cls(keys=[KeyOut.of(key) for key in view.keys], count=view.count, revision=view.revision, more=view.more)


class ChangeOut(Schema):
    revision: int
    key: str
    after: KeyOut | None = Field(description="null: it was deleted.")
    before: KeyOut | None = Field(description="What was there, where that was asked for.")


class ChangesOut(Schema):
    changes: list[ChangeOut] = Field(description="In order. None: nothing has changed so far.")
    since: int = Field(
        description="Go on from here, with `skip`: nothing that was asked for lies before that is not told."
    )
    skip: int

    @classmethod
    def of(cls, page: files.ChangePage) -> ChangesOut:
        changes = [
            ChangeOut(
                revision=change.revision,
                key=change.key,
                after=None if change.after is None else KeyOut.of(change.after),
                before=None if change.before is None else KeyOut.of(change.before),
            )
            for change in page.changes
        ]
        return cls(changes=changes, since=page.since, skip=page.skip)


# --- transactions and counters --------------------------------------------------------------------


class CompareIn(ValueIn):
    """`target` of `key` stands in `relation` to `number` (or to `value` or `text`, where the target is the value)."""

    key: str
    target: files.Target
    relation: files.Relation = "="
    number: int | None = Field(None, ge=0, le=GENERATION_MAX)

    def compare(self) -> files.Compare:
        if (self.target == "value") == (self.number is not None):
            expected = "`value` or `text`" if self.target == "value" else "`number`"
            raise Refused(422, "invalid", f"the {self.target} of {self.key!r} is compared with {expected}")
        operand = self.content if self.number is None else self.number
        return files.Compare(named(self.key), self.target, self.relation, operand)


class PutIn(ValueIn):
    do: Literal["put"]
    key: str

    def op(self, session: int) -> commands.TransactionOp:
        return commands.PutKey(named(self.key), self.content)


class DeleteIn(StrictIn):
    do: Literal["delete"]
    key: str

    def op(self, session: int) -> commands.TransactionOp:
        return commands.DeleteKey(named(self.key))


class AddIn(StrictIn):
    do: Literal["add"]
    key: str
    amount: int = Field(ge=-(2**63), le=GENERATION_MAX)

    def op(self, session: int) -> commands.TransactionOp:
        return files.AddToKey(named(self.key), self.amount)


class DeleteRangeIn(StrictIn):
    do: Literal["delete-range"]
    start: str
    end: str = ""
    prefix: bool = False

    def op(self, session: int) -> commands.TransactionOp:
        return files.DeleteRange(*range_named(self.start, self.end, prefix=self.prefix))


class CreateIn(ValueIn):
    do: Literal["create"]
    path: str
    sequential: bool = False
    parents: bool = False
    ephemeral: SessionName | None = Field(
        None, description="A session of yours: the file goes when that ends. Keep the session alive."
    )

    def op(self, session: int) -> commands.TransactionOp:
        is_ephemeral = self.ephemeral is not None
        owner = session if self.ephemeral is None else session_number(self.ephemeral)
        return files.CreateFile(
            named(self.path), self.content, is_ephemeral, self.sequential, self.parents, owner=owner
        )


class MakeDirectoryIn(StrictIn):
    do: Literal["make-directory"]
    path: str
    parents: bool = False

    def op(self, session: int) -> commands.TransactionOp:
        return files.MakeDirectory(named(self.path), self.parents)


class WriteIn(ValueIn):
    do: Literal["write"]
    path: str
    generation: Generation = files.ANY_GENERATION
    instance: Instance = files.ANY_GENERATION

    def op(self, session: int) -> commands.TransactionOp:
        return files.WriteFile(named(self.path), self.content, self.generation, self.instance)


class RemoveIn(StrictIn):
    do: Literal["remove"]
    path: str
    recursive: bool = False
    generation: Generation = files.ANY_GENERATION
    instance: Instance = files.ANY_GENERATION

    def op(self, session: int) -> commands.TransactionOp:
        return files.DeletePath(named(self.path), self.recursive, self.generation, self.instance)


class ReadIn(StrictIn):
    do: Literal["read"]
    path: str
    revision: Revision = 0

    def op(self, session: int) -> commands.TransactionOp:
        return files.ReadFile(named(self.path), self.revision)


class ReadRangeIn(StrictIn):
    do: Literal["read-range"]
    start: str
    end: str = ""
    prefix: bool = False
    revision: Revision = 0
    limit: int = Field(0, ge=0, le=commands.LIST_LIMIT_MAX)
    sort_by: files.SortBy = "key"
    descending: bool = False
    keys_only: bool = False

    def op(self, session: int) -> commands.TransactionOp:
        return files.ReadRange(
            *range_named(self.start, self.end, prefix=self.prefix),
            self.revision,
            self.limit,
            self.sort_by,
            self.descending,
            self.keys_only,
        )


class _Branches(StrictIn):
    when: list[CompareIn] = Field([], max_length=files.COMPARES_MAX, description="All must hold.")
    then: list[OperationIn] = Field([], max_length=files.OPERATIONS_MAX, description="Done where they do.")
    otherwise: list[OperationIn] = Field([], max_length=files.OPERATIONS_MAX, description="Done where one does not.")

    def creates(self) -> bool:
        """Does it take a session of the caller's that it does not name?"""
        return any(
            each.creates() if isinstance(each, NestedIn) else isinstance(each, CreateIn) and each.ephemeral is None
            for each in (*self.then, *self.otherwise)
        )

    def command(self, session: int, depth: int = 1) -> commands.Transact:
        """Raises Refused."""
        if depth > files.NESTING_MAX:
            raise Refused(422, "too-many", f"transactions are nested at most {files.NESTING_MAX} deep; came deeper")

        def built(each: OperationIn) -> commands.TransactionOp:
            return each.command(session, depth + 1) if isinstance(each, NestedIn) else each.op(session)

        return commands.Transact(
            tuple(compare.compare() for compare in self.when),
            tuple(built(each) for each in self.then),
            tuple(built(each) for each in self.otherwise),
        )


class NestedIn(_Branches):
    """A transaction within one, with comparisons and branches of its own."""

    do: Literal["transaction"]


OperationIn = Annotated[
    PutIn
    | DeleteIn
    | DeleteRangeIn
    | AddIn
    | CreateIn
    | MakeDirectoryIn
    | WriteIn
    | RemoveIn
    | ReadIn
    | ReadRangeIn
    | NestedIn,
    Field(discriminator="do"),
]


class TransactionIn(_Branches):
    pass


for _model in (_Branches, NestedIn, TransactionIn):
    _model.model_rebuild()


class TransactionOut(Schema):
    succeeded: bool = Field(description="Whether the comparisons held, so that `then` was done.")
    revision: int
    results: list[dict[str, Any]] = Field(
        description="One for each operation of the branch: a written revision, a file with its stat, a range, a count; "
        "of a transaction within this one, such an answer of its own."
    )

    @classmethod
    def of(cls, done: commands.Transacted) -> TransactionOut:
        return cls(succeeded=done.succeeded, revision=done.revision, results=[_result(each) for each in done.results])


def _result(result: commands.Result) -> dict[str, Any]:
    match result:
        case commands.Transacted():
            return TransactionOut.of(result).dict()
        case commands.Done():
            return {"revision": result.index, "existed": result.existed}
        case files.Created():
            return CreatedOut(path=result.path, revision=result.revision).dict()
        case files.Deleted():
            return DeletedOut(deleted=result.count, revision=result.revision).dict()
        case files.Counted():
            return CountedOut(value=result.value, revision=result.revision).dict()
        case files.FileContent():
            return {"value": text_of(result.value), "stat": StatOut.of(result.stat).dict()}
        case files.RangeView():
            return RangeOut.of(result).dict()
    raise AssertionError(f"no operation of ours answers with {type(result).__name__}")


class AmountIn(StrictIn):
    amount: int = Field(1, ge=-(2**63), le=GENERATION_MAX, description="What to add; negative: to take away.")


class CountedOut(Schema):
    value: int = Field(description="The sum.")
    revision: int
