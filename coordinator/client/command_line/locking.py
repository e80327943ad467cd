"""Locks and elections from a shell: `lock`, `locks …`, `elect`, `leader`, `observe`."""

from __future__ import annotations

import argparse
from typing import Any

from coordinator.client import Client
from coordinator.client.command_line import output
from coordinator.client.command_line.joining import Around, named
from coordinator.client.command_line.running import run
from coordinator.client.events import FailOver
from coordinator.client.options import DEFAULT_TTL_S
from coordinator.client.recipes.election import LOOKS_EVERY_S, Election, Leader
from coordinator.statemachine.lock_commands import Mode, sequencer


def add_to(commands: Any) -> None:
    timed = argparse.ArgumentParser(add_help=False)
    timed.add_argument(
        "--ttl",
        type=float,
        default=DEFAULT_TTL_S,
        help="seconds until it is free after this dies; default: %(default)g",
    )
    timed.add_argument(
        "--wait", type=float, help="seconds to wait in line; 0: not at all; default: as long as it takes"
    )

    lock = commands.add_parser("lock", parents=[timed], help="run a command while holding a lock")
    lock.add_argument("name")
    lock.add_argument("--also", action="append", default=[], metavar="NAME", help="take this one too, all or none")
    how = lock.add_mutually_exclusive_group()
    how.add_argument("--shared", action="store_true", help="together with others that share it")
    how.add_argument("--count", type=output.number(1), metavar="N", help="together with up to N that count it")
    lock.add_argument("--delay", type=float, default=0.0, help="seconds for which it stays unavailable if this dies")
    lock.add_argument(
        "--reentrant", action="store_true", help="join a `lock` that this runs in, where that holds the name already"
    )
    lock.add_argument("command", nargs="+", help="what to run; its token is in CONCLAVE_LOCK_TOKEN")
    lock.set_defaults(run=_lock)

    locks = commands.add_parser("locks", help="look at locks, check sequencers, take a lock away")
    these = locks.add_subparsers(required=True, metavar="COMMAND")
    show = these.add_parser("show", help="print who holds a name, how, and who waits for it")
    show.add_argument("name")
    show.set_defaults(run=_show)
    check = these.add_parser("check", help="status 0 where a sequencer is good, 1 where it is not")
    check.add_argument("sequencer", help="name:mode:token")
    check.set_defaults(run=_check)
    force = these.add_parser("break", help="take a name from all that hold it, or end its lock-delay")
    force.add_argument("name")
    force.add_argument("--reason", required=True, help="is kept, and told the holder")
    force.add_argument("--session", type=output.number(1), default=0, help="only what this session holds")
    force.set_defaults(run=_break)
    watch = these.add_parser("watch", help="print what becomes of the locks of a range of names, as it comes about")
    watch.add_argument("start", help="a name, or where a range of names begins")
    watch.add_argument("end", nargs="?", default="", help="up to before this name; default: START alone")
    watch.add_argument("--prefix", action="store_true", help="all names that begin with START")
    watch.add_argument("--since", type=output.number(0), default=0, help="from this revision on; default: from now on")
    kinds = watch.add_mutually_exclusive_group()
    kinds.add_argument("--acquired", action="store_true", help="only who came to hold a name")
    kinds.add_argument("--conflicts", action="store_true", help="only who asked for what others hold")
    kinds.add_argument("--released", action="store_true", help="only whose hold ended, and how")
    watch.add_argument("--count", type=output.number(1), help="end after so many events; fail-overs are not counted")
    watch.add_argument("--json", action="store_true", help="a JSON object a line")
    watch.set_defaults(run=_watch)
    these.add_parser("breaks", help="print what was taken away by force").set_defaults(run=_breaks)

    elect = commands.add_parser("elect", parents=[timed], help="run a command while being the elected leader")
    elect.add_argument("name")
    elect.add_argument("value", help='what to proclaim; "-": from standard input')
    elect.add_argument("command", nargs="+", help="what to run; its token is in CONCLAVE_LOCK_TOKEN")
    elect.set_defaults(run=_elect)
    leader = commands.add_parser("leader", help="print what the leader of an election proclaimed; status 1: nobody")
    leader.add_argument("name")
    leader.add_argument("-l", "--long", action="store_true", help="with its principal, session and token")
    leader.set_defaults(run=_leader)
    observe = commands.add_parser("observe", help="print who leads in an election, and each time that this changes")
    observe.add_argument("name")
    observe.add_argument("--count", type=output.number(1), help="end after so many lines")
    observe.add_argument(
        "--every", type=float, default=LOOKS_EVERY_S, help="seconds until it is seen that a leader left without a next"
    )
    form = observe.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line")
    form.add_argument("--values", action="store_true", help="each value that is proclaimed instead, whoever leads")
    observe.set_defaults(run=_observe)


def _lock(client: Client, options: argparse.Namespace) -> int:
    if options.reentrant:
        mode: Mode = "counting" if options.count else "shared" if options.shared else "exclusive"
        around = Around.of(client, (options.name, *options.also), mode)
        if around is not None:
            return run(options.command, around, {})
    if not (options.also or options.shared or options.count or options.delay):
        with client.lock(options.name, ttl=options.ttl, wait=options.wait) as lease:
            held = named([sequencer(lease.name, "exclusive", lease.token)])
            return run(options.command, lease, _variables(lease.name, lease.token) | held)
    holding = client.locks.hold(
        options.name,
        *options.also,
        shared=options.shared,
        limit=options.count,
        ttl=options.ttl,
        wait=options.wait,
        lock_delay=options.delay,
    )
    with holding as hold:
        held = named(map(hold.sequencer, hold.names))
        return run(options.command, hold, _variables(" ".join(hold.names), hold.token) | held)


def _variables(name: str, token: int) -> dict[str, str]:
    return {"CONCLAVE_LOCK_NAME": name, "CONCLAVE_LOCK_TOKEN": str(token)}


def _watch(client: Client, options: argparse.Namespace) -> int:
    told = 0
    watch = client.locks.watch(
        options.start,
        options.end,
        prefix=options.prefix,
        since=options.since,
        acquired=not (options.conflicts or options.released),
        conflicts=not (options.acquired or options.released),
        released=not (options.acquired or options.conflicts),
    )
    for event in watch:
        output.lock_event(event, as_json=options.json)
        told += not isinstance(event, FailOver)
        if told == options.count:
            break
    return 0


def _show(client: Client, options: argparse.Namespace) -> int:
    state = client.locks.look(options.name)
    limit = f" to {state.limit}" if state.mode == "counting" else ""
    print(f"{state.name}: {f'{state.mode}{limit}, token {state.token}' if state.holding else 'free'}")
    for grant in state.holders:
        print(f"held by   {grant.holder.principal:<20} session {grant.holder.session} token {grant.token}")
    for waiter in state.waiters:
        print(f"waited by {waiter.holder.principal:<20} session {waiter.holder.session} {waiter.mode}")
    if state.delay_ms:
        print(f"a holder died; it stays unavailable for {state.delay_ms / 1_000:g} s from then on")
    return 0


def _check(client: Client, options: argparse.Namespace) -> int:
    return 0 if client.locks.check_sequencer(options.sequencer) else 1


def _break(client: Client, options: argparse.Namespace) -> int:
    return 0 if client.locks.force_release(options.name, options.reason, session=options.session) else 1


def _breaks(client: Client, options: argparse.Namespace) -> int:
    after = 0
    while found := client.locks.breaks(after=after):
        for each in found:
            reason = output.as_text(each.reason.encode())
            print(f"{each.index} {each.name}: from {each.holder.principal} by {each.principal}: {reason}")
        after = found[-1].number
    return 0


def _elect(client: Client, options: argparse.Namespace) -> int:
    value = output.value_of(options.value)
    with Election(client, options.name, ttl=options.ttl).campaign(value, wait=options.wait) as leadership:
        return run(options.command, leadership, _variables(leadership.name, leadership.token))


def _leader(client: Client, options: argparse.Namespace) -> int:
    leader = Election(client, options.name).leader()
    if leader is None:
        return 1
    if options.long:
        print(_told(leader))
    else:
        output.write_value(leader.value or b"")
    return 0


def _observe(client: Client, options: argparse.Namespace) -> int:
    if options.values:
        for number, proclaimed in enumerate(Election(client, options.name).proclamations(), 1):
            print(f"{proclaimed.revision} {output.as_text(proclaimed.value)}", flush=True)
            if number == options.count:
                break
        return 0
    for number, (leader,) in enumerate(Election(client, options.name).observe(every=options.every), 1):
        output.line(
            _told(leader) if leader else "nobody leads", {"leader": leader and _values(leader)}, as_json=options.json
        )
        if number == options.count:
            break
    return 0


def _told(leader: Leader) -> str:
    who = f"{leader.principal} session {leader.session} token {leader.token}"
    return f"{who} {output.as_text(leader.value)}".rstrip()


def _values(leader: Leader) -> dict[str, Any]:
    session = f"s{leader.session}"
    value = output.as_base64(leader.value)
    return {"session": session, "principal": leader.principal, "token": leader.token, "value": value}
