"""The command line: locks and keys of a cluster, from a shell.

    python -m coordinator.client lock deploy -- ./deploy.sh     run a command under a lock
    python -m coordinator.client get|put|delete KEY             keys
    python -m coordinator.client status                         who leads, and how each replica is
    python -m coordinator.client members                        who is a member, and how far each has come
    python -m coordinator.client transfer|compact NODE          hand over to a node; snapshot a node now
    python -m coordinator.client step-down                      have the leader give up its leadership

It reads CONCLAVE_URL and CONCLAVE_TOKEN, as `manage.py token NAME` prints them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Final

from coordinator.client import Client, ConclaveError, InvalidRequest, Lease, LeaseLost, LockNotAcquired
from coordinator.client.options import DEFAULT_TIMEOUT_S, DEFAULT_TTL_S

EXIT_USAGE: Final = 2
EXIT_FAILED: Final = 69
"""The cluster refused or did not answer (EX_UNAVAILABLE)."""
EXIT_NOT_ACQUIRED: Final = 75
"""Somebody else holds the lock (EX_TEMPFAIL)."""
EXIT_LEASE_LOST: Final = 76
"""The command was ended because its lock could not be proven held any more."""
LOOK_S: Final = 0.1
"""How often the lease is looked at while the command runs."""
TERM_S_MAX: Final = 5.0
"""How long a command whose lease is lost has to end by itself."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        with Client(cluster=options.cluster, timeout=options.timeout) as client:
            status: int = options.run(client, options)
            return status
    except LockNotAcquired as error:
        print(f"conclave: {error}", file=sys.stderr)
        return EXIT_NOT_ACQUIRED
    except InvalidRequest as error:
        print(f"conclave: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ConclaveError as error:
        print(f"conclave: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coordinator.client", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cluster", default="default")
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, help="seconds that a question may take")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    lock = commands.add_parser("lock", help="run a command while holding a lock")
    lock.add_argument("name")
    lock.add_argument("--ttl", type=float, default=DEFAULT_TTL_S, help="seconds until it is free after this dies")
    lock.add_argument("--wait", type=float, help="seconds to wait in line; 0: not at all; default: as long as it takes")
    lock.add_argument("command", nargs="+", help="what to run; its token is in CONCLAVE_LOCK_TOKEN")
    lock.set_defaults(run=_lock)

    get = commands.add_parser("get", help="print a key's value; status 1 where there is none")
    get.add_argument("key")
    get.set_defaults(run=_get)
    put = commands.add_parser("put", help="write a key")
    put.add_argument("key")
    put.add_argument("value", help='"-": from standard input')
    put.set_defaults(run=_put)
    delete = commands.add_parser("delete", help="delete a key; status 1 where there was none")
    delete.add_argument("key")
    delete.set_defaults(run=_delete)
    commands.add_parser("status", help="print a line for each replica").set_defaults(run=_status)
    commands.add_parser("members", help="print a line for each member").set_defaults(run=_members)
    transfer = commands.add_parser("transfer", help="hand the leadership to a node")
    transfer.add_argument("node")
    transfer.set_defaults(run=_transfer)
    commands.add_parser("step-down", help="have the leader give up its leadership").set_defaults(run=_step_down)
    compact = commands.add_parser("compact", help="have a node take a snapshot now and cut its log behind it")
    compact.add_argument("node")
    compact.set_defaults(run=_compact)
    return parser


def _lock(client: Client, options: argparse.Namespace) -> int:
    with client.lock(options.name, ttl=options.ttl, wait=options.wait) as lease:
        environment = os.environ | {"CONCLAVE_LOCK_NAME": lease.name, "CONCLAVE_LOCK_TOKEN": str(lease.token)}
        try:
            process = subprocess.Popen(options.command, env=environment)
        except OSError as error:
            raise InvalidRequest(f"{options.command[0]}: {error.strerror}") from error
        return _guard(process, lease)


def _guard(process: subprocess.Popen[bytes], lease: Lease) -> int:
    """Wait for the command; end it where the lease is lost, so that two never work under one lock."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    while True:
        try:
            status = process.wait(LOOK_S)
            return status if status >= 0 else 128 - status
        except subprocess.TimeoutExpired:
            pass
        try:
            lease.check()
        except LeaseLost as error:
            print(f"conclave: {error}; the command is ended", file=sys.stderr)
            process.terminate()
            try:
                process.wait(min(TERM_S_MAX, lease.expires_in or TERM_S_MAX))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return EXIT_LEASE_LOST


def _get(client: Client, options: argparse.Namespace) -> int:
    value = client.get(options.key)
    if value is None:
        return 1
    sys.stdout.buffer.write(value)
    sys.stdout.buffer.flush()
    return 0


def _put(client: Client, options: argparse.Namespace) -> int:
    value = sys.stdin.buffer.read() if options.value == "-" else os.fsencode(options.value)
    client.put(options.key, value)
    return 0


def _delete(client: Client, options: argparse.Namespace) -> int:
    return 0 if client.delete(options.key) else 1


def _status(client: Client, options: argparse.Namespace) -> int:
    reports = client.status()
    print(f"{'node':<12}{'role':<15}{'term':>6}{'last':>10}{'commit':>10}{'applied':>10}")
    for node, report in sorted(reports.items()):
        if report is None:
            print(f"{node:<12}unreachable")
        elif report.waiting_for:
            print(f"{node:<12}{report.role:<15}{report.waiting_for}")
        else:
            indices = f"{report.last_index:>10}{report.commit_index:>10}{report.applied_index:>10}"
            print(f"{node:<12}{report.role:<15}{report.term:>6}{indices}")
    return 0 if any(report is not None and report.role == "leader" for report in reports.values()) else 1


def _members(client: Client, options: argparse.Namespace) -> int:
    seen = client.progress()
    votes = {member.replica for member in seen.voters}
    nodes = {member.replica: member.node for member in seen.outgoing + seen.learners + seen.voters}
    print(f"{'node':<12}{'replica':<18}{'kind':<10}{'state':<12}{'match':>10}{'lacks':>10}{'heard':>10}")
    for member in seen.members:
        kind = "voter" if member.replica in votes else "learner"
        kind = "leaving" if kind == "learner" and member.replica in {m.replica for m in seen.outgoing} else kind
        heard = "never" if member.heard_ms < 0 else f"{member.heard_ms} ms"
        lacks = seen.last_index - member.match
        node = nodes.get(member.replica, "")
        print(f"{node:<12}{member.replica:<18x}{kind:<10}{member.state:<12}{member.match:>10}{lacks:>10}{heard:>10}")
    return 0


def _transfer(client: Client, options: argparse.Namespace) -> int:
    term = client.transfer(options.node)
    print(f"{options.node} leads in term {term}")
    return 0


def _step_down(client: Client, options: argparse.Namespace) -> int:
    print(f"{client.step_down()} gave up its leadership")
    return 0


def _compact(client: Client, options: argparse.Namespace) -> int:
    print(f"{options.node} has a snapshot at index {client.compact(options.node)}, or takes it now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
