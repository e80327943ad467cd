"""What operators look at and do from a shell: `status`, `members`, `transfer`, `step-down`, `compact`."""

from __future__ import annotations

import argparse
from typing import Any

from coordinator.client import Client


def add_to(commands: Any) -> None:
    commands.add_parser("status", help="print a line for each replica").set_defaults(run=_status)
    commands.add_parser("members", help="print a line for each member").set_defaults(run=_members)
    transfer = commands.add_parser("transfer", help="hand the leadership to a node")
    transfer.add_argument("node")
    transfer.set_defaults(run=_transfer)
    commands.add_parser("step-down", help="have the leader give up its leadership").set_defaults(run=_step_down)
    compact = commands.add_parser("compact", help="have a node take a snapshot at the next mark and cut its log")
    compact.add_argument("node")
    compact.set_defaults(run=_compact)


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
