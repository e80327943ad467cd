"""Transactions from a shell: the JSON that HTTP takes, from a file or from standard input, and what came of it as JSON.

Values are base64 (`value`) or UTF-8 (`text`), as over HTTP; sessions are written s42.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from coordinator.client import Client, options
from coordinator.client import transactions as t
from coordinator.client.command_line import output
from coordinator.client.errors import InvalidRequest
from coordinator.client.transactions import Operation, Transaction
from coordinator.statemachine import commands, files

_SESSION: Final = re.compile(r"s([1-9][0-9]{0,15})")
_EXAMPLE: Final = (
    '{"when": [{"key": "a", "target": "version", "number": 0}], "then": [{"do": "put", "key": "a", "text": "1"}], '
    '"otherwise": [{"do": "read", "path": "a"}]}'
)


def add_to(subcommands: Any) -> None:
    about = "do a transaction, all of it or nothing; status 1 where its comparisons do not hold, or one was refused"
    transact = subcommands.add_parser("transact", help=about, description=f"{about}. For example: {_EXAMPLE}")
    transact.add_argument("file", help='JSON with "when", "then" and "otherwise", as over HTTP; "-": standard input')
    transact.set_defaults(run=_transact)


# --- what comes in --------------------------------------------------------------------------------


class _In(msgspec.Struct, forbid_unknown_fields=True, tag_field="do", kw_only=True):
    pass


class _Valued(_In):
    value: bytes | None = None
    text: str | None = None

    @property
    def content(self) -> bytes:
        if self.value is not None and self.text is not None:
            raise InvalidRequest("expected `value` or `text`, got both")
        return self.value if self.value is not None else (self.text or "").encode()


class _Compare(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    target: files.Target
    relation: files.Relation = "="
    number: int | None = None
    value: bytes | None = None
    text: str | None = None

    def built(self) -> files.Compare:
        given = [each for each in (self.number, self.value, self.text) if each is not None]
        expected = "`value` or `text`" if self.target == "value" else "`number`"
        if len(given) != 1 or (self.target == "value") == (self.number is not None):
            raise InvalidRequest(f"the {self.target} of {self.key!r} is compared with {expected}, and with one of them")
        operand = given[0].encode() if isinstance(given[0], str) else given[0]
        return files.Compare(options.name(self.key), self.target, self.relation, operand)


class _Put(_Valued, kw_only=True, tag="put"):
    key: str

    def built(self) -> Operation:
        return t.put(self.key, self.content)


class _Delete(_In, tag="delete"):
    key: str

    def built(self) -> Operation:
        return t.delete(self.key)


class _DeleteRange(_In, tag="delete-range"):
    start: str
    end: str = ""
    prefix: bool = False

    def built(self) -> Operation:
        return t.delete_range(self.start, self.end, prefix=self.prefix)


class _Add(_In, tag="add"):
    key: str
    amount: int

    def built(self) -> Operation:
        return t.add(self.key, self.amount)


class _Create(_Valued, kw_only=True, tag="create"):
    path: str
    sequential: bool = False
    parents: bool = False
    ephemeral: str | None = None

    def built(self) -> Operation:
        made = t.create(self.path, self.content, sequential=self.sequential, parents=self.parents)
        if self.ephemeral is None:
            return made
        session = _SESSION.fullmatch(self.ephemeral)
        if session is None:
            raise InvalidRequest(f"ephemeral: expected a session such as s42, got {self.ephemeral!r}")
        return msgspec.structs.replace(made, ephemeral=True, owner=int(session[1]))


class _MakeDirectory(_In, tag="make-directory"):
    path: str
    parents: bool = False

    def built(self) -> Operation:
        return t.make_directory(self.path, parents=self.parents)


class _Write(_Valued, kw_only=True, tag="write"):
    path: str
    generation: int | None = None
    instance: int | None = None

    def built(self) -> Operation:
        return t.write(self.path, self.content, generation=self.generation, instance=self.instance)


class _Remove(_In, tag="remove"):
    path: str
    recursive: bool = False
    generation: int | None = None
    instance: int | None = None

    def built(self) -> Operation:
        return t.remove(self.path, recursive=self.recursive, generation=self.generation, instance=self.instance)


class _Read(_In, tag="read"):
    path: str
    revision: int = 0

    def built(self) -> Operation:
        return t.read(self.path, revision=self.revision)


class _ReadRange(_In, tag="read-range"):
    start: str
    end: str = ""
    prefix: bool = False
    revision: int = 0
    limit: int = 0
    sort_by: files.SortBy = "key"
    descending: bool = False
    keys_only: bool = False

    def built(self) -> Operation:
        page = t.read_range(self.start, self.end, prefix=self.prefix, limit=self.limit, revision=self.revision)
        return msgspec.structs.replace(page, sort_by=self.sort_by, descending=self.descending, keys_only=self.keys_only)


class _Nested(_In, tag="transaction"):
    when: list[_Compare] = []
    then: list[_Operation] = []
    otherwise: list[_Operation] = []

    def built(self) -> Transaction:
        return _built(self)


_Operation = (
    _Put | _Delete | _DeleteRange | _Add | _Create | _MakeDirectory | _Write | _Remove | _Read | _ReadRange | _Nested
)


class _Transaction(msgspec.Struct, forbid_unknown_fields=True):
    when: list[_Compare] = []
    then: list[_Operation] = []
    otherwise: list[_Operation] = []


def parse(text: bytes) -> Transaction:
    """Raises InvalidRequest, saying where in it what was expected and what came."""
    try:
        return _built(msgspec.json.decode(text, type=_Transaction))
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the transaction: {error}") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"expected JSON such as {_EXAMPLE}; got what is none: {error}") from None
    except RecursionError:
        raise InvalidRequest(f"transactions are nested at most {files.NESTING_MAX} deep; got more") from None


def _built(given: _Transaction | _Nested) -> Transaction:
    transaction = Transaction().when(*(each.built() for each in given.when))
    transaction = transaction.then(*(each.built() for each in given.then))
    return transaction.otherwise(*(each.built() for each in given.otherwise))


# --- what comes out -------------------------------------------------------------------------------


def _transact(client: Client, arguments: argparse.Namespace) -> int:
    done = client.transact(parse(_text_of(arguments.file)))
    print(json.dumps(told(done)))
    return 0 if done.succeeded else 1


def _text_of(name: str) -> bytes:
    if name == "-":
        return output.given()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{name}: {error.strerror}") from error


def told(result: Any) -> dict[str, Any]:
    """What came of a transaction, or of an operation of it, as HTTP says it."""
    match result:
        case commands.Transacted():
            results = [told(each) for each in result.results]
            return {"succeeded": result.succeeded, "revision": result.revision, "results": results}
        case commands.Done():
            return {"revision": result.index, "existed": result.existed}
        case files.Created():
            return {"path": result.path, "revision": result.revision}
        case files.Deleted():
            return {"deleted": result.count, "revision": result.revision}
        case files.Counted():
            return {"value": result.value, "revision": result.revision}
        case files.FileContent():
            return output.content(result)
        case files.RangeView():
            keys = [output.key(each) for each in result.keys]
            return {"keys": keys, "count": result.count, "revision": result.revision, "more": result.more}
    raise AssertionError(f"no operation of ours answers with {type(result).__name__}")
