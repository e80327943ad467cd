"""Groups, barriers and queues from a shell."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from coordinator.client import Client
from coordinator.client.asking import Sync
from coordinator.client.command_line import output
from coordinator.client.command_line.running import run
from coordinator.client.errors import ConclaveError, LeaseLost
from coordinator.client.jeopardy import SessionHandle, Standing
from coordinator.client.options import DEFAULT_TTL_S
from coordinator.client.recipes.barrier import Barrier
from coordinator.client.recipes.double_barrier import DoubleBarrier
from coordinator.client.recipes.group import Group, Membership
from coordinator.client.recipes.queue import Queue


def add_to(commands: Any) -> None:
    _add_group(commands.add_parser("group", help="who is there"))
    _add_barrier(commands.add_parser("barrier", help="wait until somebody opens it"))
    _add_double_barrier(commands.add_parser("double-barrier", help="run a command together with others"))
    _add_queue(commands.add_parser("queue", help="items that are done at least once"))


def _add_group(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("ls", help="print its members with their data")
    listing.add_argument("name")
    listing.add_argument("-l", "--long", action="store_true", help="with what each can do, before its data")
    listing.add_argument(
        "--capability", action="append", default=[], metavar="WORD", help="only who can do this, and all others named"
    )
    listing.set_defaults(run=_members)
    join = commands.add_parser("join", help="run a command while being a member")
    join.add_argument("name")
    join.add_argument("member")
    join.add_argument("--data", default="", help='"-": from standard input')
    join.add_argument(
        "--capability", action="append", default=[], metavar="WORD", help="what it can do; once for each word"
    )
    join.add_argument(
        "--ttl",
        type=float,
        default=DEFAULT_TTL_S,
        help="seconds until it is none after this dies; default: %(default)g",
    )
    join.add_argument("command", nargs="+")
    join.set_defaults(run=_join)


def _add_barrier(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for word, act, about in (
        ("close", _close, "hold up whoever comes; status 1 where it was closed"),
        ("open", _open, "let all go on that wait; status 1 where it was open"),
        ("wait", _wait, "wait until it is open; status 1 where it stayed closed"),
    ):
        command = commands.add_parser(word, help=about)
        command.add_argument("name")
        if word == "wait":
            command.add_argument("--wait", type=float, help="seconds; default: as long as it takes")
        command.set_defaults(run=act)


def _add_double_barrier(parser: argparse.ArgumentParser) -> None:
    parser.description = "Wait until COUNT members are in, run the command, and wait until all are out again."
    parser.add_argument("name")
    parser.add_argument("count", type=output.number(1), help="so many go in together")
    parser.add_argument("member", help="what this one is called; each has a name of its own")
    parser.add_argument(
        "--ttl",
        type=float,
        default=DEFAULT_TTL_S,
        help="seconds until it is out after this dies; default: %(default)g",
    )
    parser.add_argument("--wait", type=float, help="seconds each way; default: as long as it takes; 1: not all came")
    parser.add_argument("command", nargs="+")
    parser.set_defaults(run=_double_barrier)


def _add_queue(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    put = commands.add_parser("put", help="put an item at the end, and print its name")
    put.add_argument("name")
    put.add_argument("value", help='"-": from standard input')
    put.set_defaults(run=_put)
    size = commands.add_parser("size", help="print how many items are not done")
    size.add_argument("name")
    size.set_defaults(run=_size)
    take = commands.add_parser("take", help="run a command with an item on its standard input; 1: none came in time")
    take.add_argument("name")
    take.add_argument(
        "--ttl",
        type=float,
        default=DEFAULT_TTL_S,
        help="seconds until others have it after this dies; default: %(default)g",
    )
    take.add_argument("--wait", type=float, help="seconds; default: as long as it takes")
    take.add_argument("--each", action="store_true", help="go on with the next, until none comes in time or one fails")
    take.add_argument("command", nargs="+", help="done where it ends with status 0, else given back")
    take.set_defaults(run=_take)


def _members(client: Client, options: argparse.Namespace) -> int:
    for name, member in sorted(Group(client, options.name).look(capabilities=options.capability).items()):
        able = f"{','.join(sorted(member.capabilities)) or '-'} " if options.long else ""
        print(f"{name} {able}{output.as_text(member.data)}".rstrip())
    return 0


class _Member:
    """A membership, for what runs under it."""

    def __init__(self, membership: Membership[Sync]) -> None:
        self._membership = membership

    @property
    def expires_in(self) -> float:
        return self._membership.expires_in

    def check(self) -> None:
        if not self._membership.held:
            raise LeaseLost(f"member {self._membership.name!r}: its session can not be proven alive any more")


def _join(client: Client, options: argparse.Namespace) -> int:
    data = output.value_of(options.data)
    membership = Group(client, options.name, ttl=options.ttl).join(
        options.member, data, capabilities=options.capability
    )
    try:
        status = run(options.command, _Member(membership), {})
    except BaseException:
        with contextlib.suppress(ConclaveError):  # What is to be told is what ended the command.
            membership.leave()
        raise
    membership.leave()
    return status


def _close(client: Client, options: argparse.Namespace) -> int:
    return 0 if Barrier(client, options.name).close() else 1


def _open(client: Client, options: argparse.Namespace) -> int:
    return 0 if Barrier(client, options.name).open() else 1


def _wait(client: Client, options: argparse.Namespace) -> int:
    return 0 if Barrier(client, options.name).wait(wait=options.wait) else 1


class _In:
    """One is in a double barrier, for what runs there: as long as its session lives."""

    def __init__(self, name: str, session: SessionHandle[Sync]) -> None:
        self._name = name
        self._session = session

    @property
    def expires_in(self) -> float:
        return self._session.expires_in

    def check(self) -> None:
        if self._session.standing is not Standing.SAFE:
            raise LeaseLost(f"double barrier {self._name!r}: its session can not be proven alive any more")


def _double_barrier(client: Client, options: argparse.Namespace) -> int:
    barrier = DoubleBarrier(client, options.name, options.count, options.member, ttl=options.ttl)
    try:
        session = client.session(ttl=options.ttl)  # Before it enters: later it might be another one.
        barrier.enter(wait=options.wait)
        status = run(options.command, _In(options.name, session), {})
        barrier.leave(wait=options.wait)
    except TimeoutError as error:
        output.say(f"conclave: {error}")
        return 1
    return status


def _put(client: Client, options: argparse.Namespace) -> int:
    print(Queue(client, options.name).put(output.value_of(options.value)))
    return 0


def _size(client: Client, options: argparse.Namespace) -> int:
    print(Queue(client, options.name).size())
    return 0


def _take(client: Client, options: argparse.Namespace) -> int:
    queue = Queue(client, options.name, ttl=options.ttl)
    taken = 0
    while True:
        item = queue.take(wait=options.wait)
        if item is None:
            return 0 if taken else 1
        variables = {"CONCLAVE_ITEM": item.name, "CONCLAVE_LOCK_TOKEN": str(item.token)}
        with item:  # Done at its end.
            status = run(options.command, item, variables, item.value)
            if status:
                item.give_back()
                return status
        taken += 1
        if not options.each:
            return 0
