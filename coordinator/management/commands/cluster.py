"""`manage.py cluster ...`: make clusters, say what their membership is to be, and look how it is.

What is wanted is said here and done by the reconciler (`coordinator/membership`), which `manage.py up` runs; leadership
is handed over at once. Nothing here removes anything because it is not mentioned.
"""

from __future__ import annotations

import contextlib
import reprlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone

from coordinator import audit, database_errors, wire
from coordinator.client import Client, errors
from coordinator.membership import creation, edits, known, nodes, restoration, retiring, saying
from coordinator.membership.clients import Clients
from coordinator.membership.plan import choose
from coordinator.membership.reconciler import view
from coordinator.membership.wanted import Wanted, WantedDamaged, name_problem
from coordinator.models import AuditEntry, Birth, Cluster, Node
from coordinator.statemachine import commands

TIMEOUT_S: Final = 10.0
WAIT_S_MAX: Final = 86_400.0
WAIT_POLL_S: Final = 0.5
TASK_S_MAX: Final = 10.0
BACKUP_S_MAX: Final = 60.0
LEADERSHIP_TRANSFERRED: Final = "leadership.transferred"


class Command(BaseCommand):
    help = (
        "Make clusters and change who is a member of them. What is wanted is written down, and the reconciler makes it "
        "so by safe steps: `cluster status` says how far it is and what it waits for."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        def action(name: str, run: Callable[..., None], help_text: str, *, waits: bool = False) -> CommandParser:
            sub: CommandParser = actions.add_parser(name, help=help_text, description=help_text)
            sub.set_defaults(run=run)
            if name not in ("list", "nodes"):
                sub.add_argument("--reason", default="", help="why, for the audit")
            if waits:
                sub.add_argument("--wait", type=float, default=0, metavar="S", help="seconds to wait until it is so")
            return sub

        create = action("create", self._create, "make a cluster")
        create.add_argument("name")
        create.add_argument("--replicas", type=int, help="how many, one a node; 3 where it is not said, or 5")
        create.add_argument("--on", default="", metavar="NODES", help="these nodes, separated by commas")
        create.add_argument("--gone", default="", metavar="NODES", help="nodes that are known and are lost for good")
        create.add_argument("--epoch", type=int, help="above every restore epoch that a cluster of this name ever had")

        restore = action("restore", self._restore, "begin a cluster anew from a backup")
        restore.add_argument("name")
        restore.add_argument("file", type=Path, help="the backup; the first of the nodes reads it under this path, too")
        restore.add_argument("--nodes", required=True, help="where its replicas are to be, separated by commas")
        restore.add_argument("--gone", default="", metavar="NODES", help="nodes that had it and are lost for good")
        restore.add_argument("--epoch", type=int, help="above every restore epoch that a cluster of this name ever had")

        add = action("add-replica", self._add, "want one more replica", waits=True)
        add.add_argument("name")
        add.add_argument("node", nargs="?", help="where; else where it spreads best over zones")
        add.add_argument("--priority", type=int, default=0, help="of those caught up, the highest leads where it can")

        add.add_argument("--witness", action="store_true", help="it votes and keeps the log, and has no state")

        remove = action("remove-replica", self._remove, "want a node's replica to go", waits=True)
        remove.add_argument("name")
        remove.add_argument("node")
        remove.add_argument(
            "--force",
            action="store_true",
            help="also delete it from its node at once, whatever the log says: where the cluster is lost for good",
        )

        move = action("move", self._move, "want a replica on another node", waits=True)
        move.add_argument("name")
        move.add_argument("source", metavar="FROM")
        move.add_argument("target", metavar="TO")

        replace = action("replace-after", self._replace_after, "say when a node counts as gone for good")
        replace.add_argument("name")
        replace.add_argument("seconds", type=int, help="0: never")

        transfer = action("transfer", self._transfer, "hand the leadership to a node")
        transfer.add_argument("name")
        transfer.add_argument("node")

        for name, task, help_text in (
            ("stop-replica", "stop_replica", "stop a node's replica until it is started; it counts as down"),
            ("start-replica", "start_replica", "start a node's replica that was stopped"),
            (
                "compact",
                "compact_replica",
                "have a node take a snapshot at the next mark, within a minute, and cut its log",
            ),
            ("backup", "back_up_replica", "have a node write the state to a file"),
        ):
            each = action(name, self._task, help_text)
            each.set_defaults(task=task)
            each.add_argument("name")
            each.add_argument("node")

        rebuild = action("rebuild", self._rebuild, "make the database say what the log says")
        rebuild.add_argument("name")
        zone = action("zone", self._zone, "say what a node fails together with")
        zone.add_argument("node")
        zone.add_argument("zone", help='"" takes it out of its zone')
        retire = action("retire", self._retire, "say that a node is gone for good, and nothing of it ever runs again")
        retire.add_argument("node")
        action("list", self._list, "print a line for each cluster")
        action("nodes", self._nodes, "print a line for each node that is known")
        status = action("status", self._status, "say how a cluster is, and what it waits for")
        status.add_argument("name", nargs="?", default="default")

    def handle(self, *args: Any, **options: Any) -> None:
        run = options.pop("run")
        try:
            _check(options)
            with Clients(TIMEOUT_S) as clients:
                self.clients = clients
                run(options)
        except (errors.ConclaveError, creation.NotMade, retiring.NotRetired, WantedDamaged, ValueError) as error:
            raise CommandError(f"{error}") from error
        except DatabaseError as error:
            raise CommandError(database_errors.in_words(error)) from error

    # --- what is wanted ---------------------------------------------------------------------------

    def _create(self, options: dict[str, Any]) -> None:
        on, gone = _names(options["on"]), _names(options["gone"])
        with self._noted_if_cut_off(options, "cluster.created", {"on": list(on), "gone": list(gone)}):
            cluster = creation.create(
                options["name"],
                options["replicas"],
                client_of=self.clients,
                on=on,
                gone=gone,
                epoch=options["epoch"],
                say=self.stdout.write,
            )
        made = Birth.objects.get(cluster_id=cluster.cluster_id).nodes
        self._audit(options, "cluster.created", {"on": list(on), "replicas": len(made), "gone": list(gone)})

    def _restore(self, options: dict[str, Any]) -> None:
        on, gone = _names(options["nodes"]), _names(options["gone"])
        path = options["file"].resolve()
        details = {"on": list(on), "from": str(path), "gone": list(gone)}
        with self._noted_if_cut_off(options, "cluster.restored", details):
            restoration.restore(
                options["name"],
                path,
                on,
                client_of=self.clients,
                epoch=options["epoch"],
                gone=gone,
                say=self.stdout.write,
            )
        self._audit(options, "cluster.restored", details)

    def _add(self, options: dict[str, Any]) -> None:
        if options["node"] is not None:
            known.check(options["node"])
        cluster, client = self._cluster(options["name"])

        def add(wanted: Wanted) -> Wanted:
            node = options["node"] or self._spare(cluster, client, wanted)
            options["node"] = node
            return wanted.adding(node, options["priority"], witness=options["witness"])

        self._want(cluster, client, add, options, "replica.added")

    def _spare(self, cluster: Cluster, client: Client, wanted: Wanted) -> str:
        zones = dict(Node.objects.values_list("name", "zone"))
        views = [view(r, cluster.cluster_id, zones.get(name, ""), None) for name, r in nodes.look().items()]
        chosen = choose(1, wanted, views, zones, members=[member.node for member in self._members(client)])
        if not chosen:
            raise CommandError("no node answers that has no replica of it yet")
        return chosen[0]

    def _remove(self, options: dict[str, Any]) -> None:
        if options["force"]:
            return self._force(options)
        cluster, client = self._cluster(options["name"])
        node = options["node"]

        def remove(wanted: Wanted) -> Wanted:
            there = {*wanted.nodes, *wanted.leaving, *(m.node for m in self._members(client))}
            if node not in there:
                raise ValueError(f"{node} has no replica of {cluster}; these have: {', '.join(sorted(there))}")
            return wanted.removing(node)

        self._want(cluster, client, remove, options, "replica.removed")
        return None

    @staticmethod
    def _members(client: Client) -> tuple[Any, ...]:
        seen = client.progress()
        return (*seen.voters, *seen.learners)

    def _force(self, options: dict[str, Any]) -> None:
        """Delete a replica from its node at an operator's word. The log, where there still is one, is not asked."""
        node, name = options["node"], options["name"]
        reports = nodes.look()
        report = reports.get(node)
        if report is None:
            if why := known.problem([node], reports):
                raise CommandError(why)
            raise CommandError(f"{node} does not answer")
        hosted = next((replica for replica in report.replicas if replica.cluster_name == name), None)
        if hosted is None:
            raise CommandError(f"{node} hosts no replica of {name}")
        details = {"node": node, "replica": hosted.replica}
        with self._noted_if_cut_off(options, "replica.forced-out", details, nodes.BrokerUnavailable):
            asked = nodes.ask_and_wait(
                node,
                "remove_replica",
                f"force-{secrets.token_hex(8)}",
                TASK_S_MAX,
                cluster=hosted.cluster,
                replica=hosted.replica,
                forced=node,
            )
        self._audit(options, "replica.forced-out", details, _ending(asked))
        self._say_outcome(asked)

    def _move(self, options: dict[str, Any]) -> None:
        source, target = options["source"], options["target"]
        known.check(target)
        cluster, client = self._cluster(options["name"])
        self._want(cluster, client, lambda wanted: wanted.moving(source, target), options, "replica.moved")

    def _replace_after(self, options: dict[str, Any]) -> None:
        Wanted(()).replacing_after(options["seconds"])
        cluster, client = self._cluster(options["name"])

        def change(wanted: Wanted) -> Wanted:
            return wanted.replacing_after(options["seconds"])

        self._want(cluster, client, change, options, "cluster.replace-after")

    def _want(
        self,
        cluster: Cluster,
        client: Client,
        change: Callable[[Wanted], Wanted],
        options: dict[str, Any],
        action: str,
    ) -> None:
        began = time.monotonic()
        try:
            wanted = edits.say(client, cluster, change)
        except edits.NotInTheLogYet:
            self._audit_wish(options, action)
            raise
        self._audit_wish(options, action)
        self.stdout.write(f"wanted: replicas of {cluster} on {', '.join(wanted.nodes)}")
        wait_s = options.get("wait", 0)
        if not wait_s:
            self.stdout.write(f"the reconciler makes it so; to watch it: manage.py cluster status {cluster}")
            return
        while True:
            if self._is_so(client, wanted):
                self.stdout.write(f"so it is, after {time.monotonic() - began:.1f} s")
                return
            if time.monotonic() - began >= wait_s:
                raise CommandError(f"not within {wait_s:g} s: {self._says(cluster)}")
            time.sleep(WAIT_POLL_S)

    def _audit_wish(self, options: dict[str, Any], action: str) -> None:
        keys = ("node", "source", "target", "priority", "seconds")
        self._audit(options, action, {key: options[key] for key in keys if key in options})

    @staticmethod
    def _is_so(client: Client, wanted: Wanted) -> bool:
        try:
            seen = client.progress()
        except errors.Unavailable:
            return False
        committed = not seen.outgoing and seen.configuration_index <= seen.commit_index
        votes = {(member.node, member.witness) for member in seen.voters}
        wants = {(place.node, place.witness) for place in wanted.voters}
        there = {member.node for member in (*seen.voters, *seen.learners)}
        return committed and votes >= wants and not there & set(wanted.leaving)

    # --- at once ----------------------------------------------------------------------------------

    def _transfer(self, options: dict[str, Any]) -> None:
        _, client = self._cluster(options["name"])
        details = {"node": options["node"]}
        with self._noted_if_cut_off(options, LEADERSHIP_TRANSFERRED, details, errors.Unavailable):
            term = client.transfer(options["node"])
        self._audit(options, LEADERSHIP_TRANSFERRED, details)
        self.stdout.write(f"{options['node']} leads {options['name']} in term {term}")

    def _task(self, options: dict[str, Any]) -> None:
        node, task = options["node"], options["task"]
        reports = nodes.look()
        if why := known.problem([node], reports):
            raise CommandError(why)
        cluster_id = self._cluster_id(options["name"], reports)
        request = f"{task.partition('_')[0]}-{secrets.token_hex(8)}"
        wait_s = BACKUP_S_MAX if task == "back_up_replica" else TASK_S_MAX
        with self._noted_if_cut_off(options, f"replica.{task}", {"node": node}, nodes.BrokerUnavailable):
            asked = nodes.ask_and_wait(node, task, request, wait_s, cluster=cluster_id)
        self._audit(options, f"replica.{task}", {"node": node}, _ending(asked))
        self._say_outcome(asked)

    def _cluster_id(self, name: str, reports: dict[str, nodes.NodeReport]) -> str:
        """By what the nodes host: a cluster without a leader can be stopped, too."""
        found = {r.cluster for report in reports.values() for r in report.replicas if r.cluster_name == name}
        if len(found) != 1:
            raise CommandError(f"expected one cluster {name} among what the nodes host, found {len(found)}")
        return found.pop()

    def _say_outcome(self, asked: nodes.Asked) -> None:
        if asked.outcome is None:
            raise CommandError(
                f"{asked.node} was asked, and has not said what became of it: where it takes that within "
                f"{nodes.TASK_EXPIRES_S} s of being asked, it does it still (celery -A coordinator inspect replicas)"
            )
        if asked.outcome.state != nodes.DONE:
            raise CommandError(f"{asked.node}: {asked.outcome.message}")
        self.stdout.write(f"{asked.node}: {asked.outcome.message}")

    def _zone(self, options: dict[str, Any]) -> None:
        zone = options["zone"]
        if zone and not wire.NODE_NAME.fullmatch(zone):
            raise CommandError(f"a zone's name matches {wire.NODE_NAME.pattern}, got {reprlib.repr(zone)}")
        known.check(options["node"])
        Node.objects.update_or_create(name=options["node"], defaults={"zone": zone})
        self._audit(options | {"name": "-"}, "node.zone", {"node": options["node"], "zone": zone})
        self.stdout.write(f"{options['node']} is in {'zone ' + zone if zone else 'no zone'}")

    def _retire(self, options: dict[str, Any]) -> None:
        retiring.retire(options["node"], self.clients)
        self._audit(options | {"name": "-"}, "node.retired", {"node": options["node"]})
        self.stdout.write(f"{options['node']} is retired: no new cluster waits for it; once it reports, it is back")

    def _rebuild(self, options: dict[str, Any]) -> None:
        cluster, client = self._cluster(options["name"])
        generation = edits.rebuild(client, cluster.name)
        self._audit(options, audit.CLUSTER_REBUILT, {"generation": generation})
        if generation:
            self.stdout.write(f"the database says what the log says: generation {generation}")
        else:
            self.stdout.write("the log holds no wanted membership; the database has none now either")

    # --- looking ----------------------------------------------------------------------------------

    def _list(self, options: dict[str, Any]) -> None:
        found: dict[tuple[str, str], dict[str, nodes.HostedReplica]] = {}
        for node, report in nodes.look().items():
            for hosted in report.replicas:
                found.setdefault((hosted.cluster_name, hosted.cluster), {})[node] = hosted
        self.stdout.write(f"{'cluster':<20}{'identity':<18}{'leader':<12}{'term':>6}  hosted by")
        for (name, cluster_id), hosts in sorted(found.items()):
            newest = max(hosts.values(), key=lambda hosted: hosted.term)
            leader = next((node for node, hosted in hosts.items() if hosted.role == "leader"), newest.leader or "none")
            names = ", ".join(sorted(hosts))
            self.stdout.write(f"{name:<20}{cluster_id:<18}{leader:<12}{newest.term:>6}  {names}")

    def _nodes(self, options: dict[str, Any]) -> None:
        rows = {row.name: row for row in Node.objects.all()}
        reports = creation.look_for({name for name, row in rows.items() if row.retired_at is None})
        self.stdout.write(f"{'node':<20}{'state':<12}{'zone':<16}{'last seen (UTC)':<18}hosts")
        for name in sorted({*rows, *reports}):
            row, report = rows.get(name), reports.get(name)
            if report is not None:
                state = "draining" if report.draining else "answers"
            else:
                state = "retired" if row is not None and row.retired_at is not None else "silent"
            zone = row.zone if row is not None else ""
            seen = f"{row.last_seen:%Y-%m-%d %H:%M}" if row is not None else "now"
            hosts = sorted({hosted.cluster_name for hosted in report.replicas}) if report is not None else []
            self.stdout.write(f"{name:<20}{state:<12}{zone:<16}{seen:<18}{', '.join(hosts)}".rstrip())

    def _status(self, options: dict[str, Any]) -> None:
        name = options["name"]
        client = self.clients(name)
        self._say_members(client)
        try:
            cluster = self._cluster(name)[0]
            said = edits.compare(cluster, client.query(commands.GetWantedMembership(), timeout=3))
        except errors.Unavailable as error:
            self._check_there_is(name, client)
            raise CommandError(f"no leader answers: {error}") from error  # So a script is told, too.
        if said.wanted is None:
            self.stdout.write(said.message or edits.nothing_said(name))
        else:
            leaving = f"; to leave: {', '.join(said.wanted.leaving)}" if said.wanted.leaving else ""
            self.stdout.write(f"wanted (generation {said.generation}): {', '.join(said.wanted.nodes)}{leaving}")
        self.stdout.write(self._says(cluster))

    @staticmethod
    def _check_there_is(name: str, client: Client) -> None:
        """One of which no leader answers is there still where a node has it, or the record does."""
        try:
            served = {entry.name for entry in client.directory().clusters}
        except errors.Unavailable:
            served = set()
        served |= {hosted.cluster_name for report in nodes.look().values() for hosted in report.replicas}
        if name not in served and not Cluster.objects.filter(name=name).exists():
            raise CommandError(f"there is no cluster {name}; these are: {', '.join(sorted(served)) or 'none'}")

    def _say_members(self, client: Client) -> None:
        try:
            seen = client.progress(timeout=3)
        except errors.Unavailable:
            for node, report in sorted(client.status().items()):
                how = "unreachable" if report is None else report.waiting_for or report.role
                self.stdout.write(f"{node:<12}{how}")
            return
        votes = {member.replica for member in seen.voters}
        witnesses = {member.replica for member in (*seen.learners, *seen.voters) if member.witness}
        nodes_of = {member.replica: member.node for member in (*seen.outgoing, *seen.learners, *seen.voters)}
        troubles = {
            node: f"  {said.waiting_for}" for node, said in client.status().items() if said and said.waiting_for
        }
        for member in seen.members:
            kind = "leads" if member.state == "leader" else "votes" if member.replica in votes else "learns"
            heard = "  a witness" if member.replica in witnesses else ""
            heard += "" if 0 <= member.heard_ms <= seen.quorum_ms else "  does not answer"
            lacks = seen.last_index - member.match
            node = nodes_of.get(member.replica, "")
            self.stdout.write(f"{node:<12}{kind:<8}{member.replica:<18x}lacks {lacks}{heard}{troubles.get(node, '')}")

    @staticmethod
    def _says(cluster: Cluster) -> str:
        said = saying.of(cluster)
        when = f", {said.looked_at:%H:%M:%S} UTC" if said is not None else ""
        return f"reconciler{when}: {saying.in_words(said, timezone.now())}"

    # --- for all of them --------------------------------------------------------------------------

    def _cluster(self, name: str) -> tuple[Cluster, Client]:
        """The record of the cluster that has this name now, and its client."""
        client = self.clients(name)
        client.confirm()
        return edits.cluster_row(name, client.cluster_id), client

    @contextlib.contextmanager
    def _noted_if_cut_off(
        self, options: dict[str, Any], action: str, details: dict[str, Any], *causes: type[Exception]
    ) -> Iterator[None]:
        """What was asked for, and may come to be though nobody waits for it any more, is in the audit: where somebody
        interrupts the waiting, and where one of these errors ends it."""
        cut_off: tuple[type[BaseException], ...] = (KeyboardInterrupt, *causes)
        try:
            yield
        except cut_off:
            self._audit(options, action, details, AuditEntry.Outcome.UNKNOWN)
            raise

    def _audit(
        self,
        options: dict[str, Any],
        action: str,
        details: dict[str, Any],
        outcome: AuditEntry.Outcome = AuditEntry.Outcome.DONE,
    ) -> None:
        try:
            audit.record(
                actor=audit.OPERATOR,
                principal="web",
                action=action,
                target=options["name"],
                reason=options["reason"],
                details=details,
                outcome=outcome,
            )
        except DatabaseError as error:
            self.stderr.write(f"This could not be written to the audit: {error}")


def _ending(asked: nodes.Asked) -> AuditEntry.Outcome:
    """How the audit calls what a node was asked: what it has not answered yet, or has forgotten, may be done all the
    same."""
    if asked.outcome is None or asked.outcome.state == nodes.LOST:
        return AuditEntry.Outcome.UNKNOWN
    return AuditEntry.Outcome.DONE if asked.outcome.state == nodes.DONE else AuditEntry.Outcome.REFUSED


def _check(options: dict[str, Any]) -> None:
    """What can be told without asking anybody. Raises ValueError."""
    name, wait_s = options.get("name"), options.get("wait", 0.0)
    if name is not None and not wire.NODE_NAME.fullmatch(name):
        raise ValueError(f"a cluster's name matches {wire.NODE_NAME.pattern}, got {reprlib.repr(name)}")
    for node in (options.get("node"), options.get("source"), options.get("target")):
        if node is not None and (why := name_problem(node)):
            raise ValueError(why)
    if not 0 <= wait_s <= WAIT_S_MAX:
        raise ValueError(f"expected --wait from 0 to {WAIT_S_MAX:.0f} seconds, got {wait_s:g}")


def _names(text: str) -> tuple[str, ...]:
    """Of a list that is separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
