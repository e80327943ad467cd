"""One turn of a node, the only way that anything happens on it:

    drain the mailboxes → step and tick → publish what promises nothing of this turn's disk
    → journal once → apply → publish the rest

Two publishes and one commit of the journal at the most, whatever came in: load makes turns larger, not more. Whoever
had nothing to say before the journal, a follower above all, publishes its acknowledgements before it applies. Journal,
bus, clock and randomness are handed in; the simulator runs this very code (docs/design.md, "One turn is one
piece of code").
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, NamedTuple

import msgspec
from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.consensus.engine import NEVER_US, Outgoing, Ready, Role
from coordinator.replica import operations, reads
from coordinator.replica.callers import Answers, Caller
from coordinator.replica.feed import Feed
from coordinator.replica.ingress import Asked, Ingress, Refused
from coordinator.replica.leases import STEP_US_MAX
from coordinator.replica.meters import NodeMeters
from coordinator.replica.ports import Bus, Clock, Inbound, Journal, Outbound
from coordinator.replica.replica import Replica
from coordinator.replica.report import WAITING_FOR_LOG, Identity, directory, replica_report, waiting_report
from coordinator.replica.round_trips import RoundTrips
from coordinator.replica.sleep import Sleep
from coordinator.replica.snapshot_files import Staging
from coordinator.replica.stored import StoredReplica
from coordinator.replica.whereabouts import Whereabouts
from coordinator.statemachine.commands import FORBIDDEN, INVALID, Done, Failure
from coordinator.statemachine.commands.levels import LATER_WROTE_IT
from coordinator.wire import Channels, PeerMessage, Refusal, WireError

REFUSALS_MAX: Final = 32
"""Unsigned refusals of one turn: nobody's garbage makes the node talk without end."""
ANSWERS_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of one turn, but for what was asked before: who asks more than that is not heard, since a question of 10 bytes may
have an answer of thousands. Whoever asks in earnest asks again."""
FEW_REPLICAS: Final = 8
"""A node with no more has a look at each of them in every turn."""
LOOK_AGAIN_US: Final = 1_000_000
"""At each replica at the latest, whatever it has to do."""
QUIET_US: Final = 2_000_000
WITNESS: Final = "it is a witness: it votes and keeps the log, and has no state to answer from; ask another node"
FSYNC_SAMPLES_MAX: Final = 256


class Outcome(NamedTuple):
    """`deadline_us`: when the next turn is due if nothing comes before. `crash`: an operator asked for the
    process to die (fault injection). `is_settled`: nobody waits for what peers say next, as where the second of two
    acknowledgements is still to come: it may wait a little for the turn of something else. `is_quiet`: nobody
    has asked anything and nothing was written for QUIET_US."""

    deadline_us: int
    crash: bool
    is_settled: bool = False
    is_quiet: bool = False


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Turn:
    """A node: its replicas on one loop, one journal and one mailbox."""

    def __init__(
        self,
        identity: Identity,
        channels: Channels,
        peer_key: bytes,
        replicas: list[Replica],
        *,
        journal: Journal,
        bus: Bus,
        clock: Clock,
        drops: Counter[str],
    ) -> None:
        """`drops` counts packets and messages that are dropped, by reason; the bus may count into it too."""
        self.identity = identity
        self.replicas = {replica.cluster: replica for replica in replicas}
        self.damaged: dict[int, str] = {}
        """Of those that are stopped: clusters whose replica the journal can not give back, and why."""
        self.resting: dict[int, StoredReplica] = {}
        """Those that were stopped, by cluster: the journal has them, and nothing comes to them."""
        self._channels = channels
        self._peer_key = peer_key
        self._journal = journal
        self._bus = bus
        self._clock = clock
        self._ingress = Ingress(identity.node, channels, peer_key, drops)
        self.drops = drops
        self._answers = Answers(identity.node)
        self._feed = Feed(identity, channels, peer_key)
        self._fsyncs_us: deque[int] = deque(maxlen=FSYNC_SAMPLES_MAX)
        self.meters = NodeMeters()
        self.round_trips = RoundTrips()
        self._refused: list[Refused] = []
        self.whereabouts = Whereabouts(clock)
        self.few_replicas = FEW_REPLICAS
        self._stirred: set[int] = set()
        """Clusters of which something came in this turn."""
        self.sleep = Sleep(identity.boot, self.replicas, self._stirred)
        self._due_us: dict[int, int] = {}
        """Cluster to when its replica has something to do though nothing comes, in the order of `replicas`."""
        self._next_due_us = NEVER_US
        """The first of these."""
        self._followed_nodes: dict[int, tuple[str, str]] = {}
        """Cluster to node and address of the leader that its replica follows."""
        self._is_watched = False
        """Has the bus been told of them as they are?"""
        self.pace_us = NEVER_US
        """Whoever runs the turns begins one so often; a later one says that the node stood still."""
        self._turn_us = clock.now_us()
        """When the last one began."""
        self._busy_us = clock.now_us()
        """When somebody last asked anything, or something was written."""
        self._crash = False
        self._directory: wire.Directory | None = None
        """As it is in this turn: with a hundred clusters it is work, and all ask for it when a leader has died."""

    def run(self) -> Outcome:
        """Do one turn. Raises JournalFailed: then the process must end."""
        packets = self._bus.drain()
        # After the drain: whatever came is no later than this, however long the process slept before (history 3).
        now_us = self._clock.now_us()
        self._directory = None
        self._note_stall(now_us)
        self._take_in(packets, now_us)
        self.sleep.pass_time(now_us)
        if len(self.replicas) > self.few_replicas:
            self.sleep.beat(now_us)
        else:
            self.sleep.wake_leaders()
        replicas = self._awake(now_us)
        for replica in replicas:
            replica.tick(now_us, connected=self._bus.connected)
        readies = [(replica, replica.prepare(self._answers, self._journal, now_us)) for replica in replicas]

        early = [(replica, ready.early) for replica, ready in readies if ready.early]
        has_spoken = bool(early) and self._publish(early, [])
        if now_us >= self.round_trips.due_us:
            self.round_trips.sent([(replica.cluster, outgoing) for replica, outgoing in early], now_us)
        took_us = self._write(readies)
        late = [(replica, ready.late) for replica, ready in readies if ready.late]
        if late and not has_spoken:
            self._publish(late, [])
            late = []
        for replica, ready in readies:
            replica.finish(ready, self._answers, now_us, took_us)
            if took_us:
                replica.disk_took(took_us, now_us)
            if replica.history.pending:
                replica.history.stamp(self._clock.wall_ms())
        rest = self._answers.take()
        if self._refused:
            rest += self._refusals()
        rest += self._words()
        rest += self._feed.packets(self.replicas.values(), self.drops, self._fsyncs_us, now_us, self._waits_for)
        for replica in replicas:
            words = replica.take_peer_words(now_us)
            if words:
                late.append((replica, words))
        if late or rest:
            self._publish(late, rest)
        self._note_due(replicas, now_us)
        self.meters.turns.observe(self._clock.now_us() - now_us)
        is_settled = not (self.round_trips.open or [replica for replica in replicas if not replica.is_settled])
        return Outcome(self._next_us(now_us), self._crash, is_settled, now_us - self._busy_us >= QUIET_US)

    def _note_stall(self, now_us: int) -> None:
        """Where this turn comes too late, as leases count it (a paused process, one that waits for a processor, a long
        turn before), nobody's silence is counted for it: what was said lies unread, or others are as slow. Before what
        came is taken in."""
        still_us = now_us - self._turn_us - self.pace_us
        self._turn_us = now_us
        if still_us <= 0:
            return
        self.sleep.stood_still(still_us)
        for replica in self.replicas.values():
            if not self.sleep.holds(replica):
                replica.engine.stood_still(still_us)

    # --- in ---------------------------------------------------------------------------------------

    def _take_in(self, packets: list[Inbound], now_us: int) -> None:
        for packet in packets:
            if packet.from_peers:
                node, messages = self._ingress.peers(packet.data)
                self.whereabouts.heard(node, now_us)
                for message in messages:
                    self._step(node, message, now_us)
            else:
                self._take_requests(packet.data, now_us)
        for node in self._bus.take_silent():
            for replica in self.replicas.values():
                if replica.leader_node == node:
                    self.stir(replica.cluster)
                    replica.engine.suspect(replica.engine.leader, now_us)

    def _step(self, node: str, message: PeerMessage, now_us: int) -> None:
        said = message.message
        if type(said) is wire.Whereabouts:
            self.whereabouts.said(node, said, now_us)
        elif type(said) is wire.SleepBeat:
            self.sleep.take_beat(node, said, now_us)
        elif type(said) is wire.SleepAnswer:
            self.sleep.take_answer(node, said, now_us)
        else:
            replica = self.replicas.get(message.cluster)
            if replica is None or replica.replica != message.receiver or replica.stopped:
                self.drops["peer-identity"] += 1  # For a replica that is gone, or a cluster of an earlier life.
                return
            self.stir(message.cluster)
            self._step_replica(replica, node, message, now_us)

    def _step_replica(self, replica: Replica, node: str, message: PeerMessage, now_us: int) -> None:
        sender, said = message.sender, message.message
        if type(said) is wire.LeftReads:
            replica.reading.delegate.hear(sender, said)
        elif type(said) is wire.ReadsTaken:
            replica.reading.hear_taken(sender, said, now_us)
        elif type(said) is wire.StateDigest:
            replica.hear_digest(sender, said)
        else:
            if replica.configuration.member(sender) is None:
                self.whereabouts.spoke(message.cluster, sender, node)
            if self.round_trips.open:
                self.round_trips.answered(node, message, now_us)
            replica.engine.step(sender, said, now_us)

    def _take_requests(self, data: bytes, now_us: int) -> None:
        taken = self._ingress.clients(data, self._key_of, self._why_unknown)
        if type(taken) is Asked:
            caller, self._busy_us = taken.caller, now_us
            may_be_long = len(data) > reads.REQUEST_BYTES_MAX
            for number, request in enumerate(taken.requests):
                if self._answers.size > ANSWERS_BYTES_MAX:
                    self.drops["client-flood"] += len(taken.requests) - number
                    break
                if may_be_long and reads.is_too_long(request):
                    self._answers.add(caller, wire.Answer(request.id, Failure(INVALID, reads.TOO_LONG)))
                    continue
                try:
                    self._ask(caller, request, now_us)
                except WireError as error:
                    self.drops[f"client-{error.reason}"] += 1
                    failure = Failure(INVALID, "the command does not parse; is the client of another version?")
                    self._answers.add(caller, wire.Answer(request.id, failure))
        elif type(taken) is Refused and len(self._refused) < REFUSALS_MAX:
            self._refused.append(taken)

    def _key_of(self, token_id: str) -> bytes | None:
        for replica in self.replicas.values():
            known = replica.machine.key_of(token_id)
            if known is not None:
                return known[1]
        return None

    def _why_unknown(self) -> Refusal:
        if not self.replicas:
            return Refusal(wire.REFUSED_WAITING, self._waits_for(), self.identity.pid)
        if all(replica.engine.is_witness for replica in self.replicas.values()):
            return Refusal(wire.REFUSED_WAITING, WITNESS, self.identity.pid)
        if not any(replica.machine.cluster_id for replica in self.replicas.values()):
            return Refusal(wire.REFUSED_WAITING, WAITING_FOR_LOG, self.identity.pid)
        return Refusal(wire.REFUSED_TOKEN, f"{self.identity.node} knows no such token (yet)", self.identity.pid)

    def _ask(self, caller: Caller, request: wire.Request, now_us: int) -> None:
        answers = self._answers
        kind = type(request)
        if kind is wire.CommandRequest or kind is wire.QueryRequest:
            replica = self.replicas.get(request.cluster)  # type: ignore[union-attr]
            if replica is not None and not replica.stopped:
                self.stir(replica.cluster)
                return replica.ask(caller, request, answers, now_us)  # type: ignore[arg-type]
        match request:
            case wire.DroppedRequest(cluster=cluster):
                if cluster in self.replicas:
                    self._stirred.add(cluster)
                    self.replicas[cluster].hear_dropped(caller, request)
            case wire.DirectoryRequest(request_id):
                if self._directory is None:
                    self._directory = directory(self.identity.node, self.replicas.values(), self._address_for_clients)
                answers.add(caller, msgspec.structs.replace(self._directory, id=request_id))
            case wire.StatusRequest(request_id, cluster_name):
                answers.add(caller, wire.StatusAnswer(request_id, self._status(cluster_name)))
            case _:
                self.stir(request.cluster)
                replica = self.replicas.get(request.cluster)
                if replica is None or (replica.stopped and not isinstance(request, wire.CrashRequest)):
                    answers.add(caller, wire.NotLeader(request.id, ""))
                elif isinstance(request, wire.CrashRequest):
                    answers.add(caller, wire.Answer(request.id, self._may_crash(replica, caller, request)))
                elif isinstance(
                    request,
                    (
                        wire.CommandRequest,
                        wire.QueryRequest,
                        wire.KeepAliveRequest,
                        wire.ConfirmRequest,
                        wire.WatchRequest,
                        wire.CachedQueryRequest,
                        wire.RenewCacheRequest,
                        wire.EventsRequest,
                    ),
                ):
                    replica.ask(caller, request, answers, now_us)
                else:
                    answers.add(caller, operations.answer(self.identity.node, replica, caller, request, now_us))
        return None

    def _status(self, cluster_name: str) -> wire.ReplicaReport:
        for replica in self.replicas.values():
            if replica.cluster_name == cluster_name:
                return replica_report(self.identity, replica, self.drops, digest=True)
        return waiting_report(self.identity, cluster_name, self.drops, self._waits_for(cluster_name))

    def _waits_for(self, cluster_name: str = "") -> str:
        """Why no replica runs here: of that cluster, or ("") of any."""
        resting = [stored.cluster_name for stored in self.resting.values() if cluster_name in ("", stored.cluster_name)]
        for cluster, why in self.damaged.items():
            if cluster in self.resting and cluster_name in ("", self.resting[cluster].cluster_name):
                name = self.resting[cluster].cluster_name
                if why.endswith(LATER_WROTE_IT):
                    return f"its replica of {name} takes no part until that version is started again: {why}"
                return f"its replica of {name} is damaged, and takes no part until it is removed by force: {why}"
        if len(resting) == 1:
            return f"its replica of {resting[0]} is stopped, until it is started"
        if resting:
            return f"its {len(resting)} replicas are stopped, until they are started"
        if cluster_name and (self.replicas or self.resting):
            return f"it hosts no replica of cluster {cluster_name!r}"
        return self.identity.waiting_for

    def _may_crash(self, replica: Replica, caller: Caller, request: wire.CrashRequest) -> Done | Failure:
        if not self.identity.faults_allowed:
            return Failure(FORBIDDEN, "fault injection is off here (CONCLAVE_FAULTS)")
        if not operations.may_administer(replica, caller, request.act_for):
            return Failure(FORBIDDEN, "ending a node's process takes the right to administer")
        if request.pid != self.identity.pid:
            return Failure(INVALID, f"process {request.pid} was meant, and this is {self.identity.pid}")
        self._crash = True
        return Done(replica.engine.applied_index)

    # --- the middle -------------------------------------------------------------------------------

    def _write(self, readies: list[tuple[Replica, Ready]]) -> int:
        """How long the journal took, in microseconds; 0 where that says nothing of the disk."""
        writes = [write for replica, ready in readies if (write := replica.write(ready)) is not None]
        if not writes:
            return 0
        before_us = self._busy_us = self._clock.now_us()
        self._journal.commit(writes)
        took_us = self._clock.now_us() - before_us
        self._fsyncs_us.append(took_us)
        self.meters.commits.observe(took_us)
        heads = [write.head for write in writes if write.head is not None]
        for head in heads:
            beside_us = head.staged.took_us if isinstance(head.staged, Staging) else 0
            self.meters.snapshot_writes.observe(beside_us + took_us)
        if heads:
            return 0  # A snapshot takes its time on any disk: that is no stall.
        return took_us

    # --- out --------------------------------------------------------------------------------------

    def _publish(self, batches: list[tuple[Replica, list[Outgoing]]], rest: list[Outbound]) -> bool:
        """True where there was anything to publish."""
        by_node: dict[tuple[str, str], list[PeerMessage]] = {}
        for replica, outgoing in batches:
            for receiver, message in outgoing:
                route = self.whereabouts.route(self.identity, replica, receiver)
                if route is not None:
                    by_node.setdefault(route, []).append(
                        PeerMessage(replica.cluster, replica.replica, receiver, message)
                    )
        if not by_node:
            if rest:
                self._bus.publish(rest)
            return bool(rest)
        if self.identity.address or self.whereabouts.has_moved:
            self.whereabouts.tell(self.identity, by_node)
        packets = [
            Outbound(address, self._channels.peer(node), self._seal(node, part))
            for (node, address), messages in by_node.items()
            for part in _parts(messages)
        ]
        self._bus.publish(packets + rest)
        return True

    def _address_for_clients(self, node: str, in_log: str) -> str:
        return self.whereabouts.for_clients(self.identity, node, in_log)

    def _followed(self, replica: Replica) -> tuple[str, str] | None:
        """Node and address of the leader that a replica follows."""
        if replica.engine.role is not Role.FOLLOWER:
            return None
        leader = replica.configuration.member(replica.engine.leader)
        return (
            None
            if leader is None
            else (leader.node, self.whereabouts.address_of(self.identity, leader.node, leader.address))
        )

    def _words(self) -> list[Outbound]:
        """What is said of those that sleep. Each in a packet of its own: a node that does not know it drops that."""
        words = self.sleep.take_words()
        if not words:
            return []
        packets = [
            ((node, self.whereabouts.address_of(self.identity, node, in_log)), [PeerMessage(0, 0, 0, word)])
            for node, in_log, word in words
        ]
        if self.identity.address or self.whereabouts.has_moved:
            told: dict[tuple[str, str], list[PeerMessage]] = {route: [] for route, _ in packets}
            self.whereabouts.tell(self.identity, told)
            packets[:0] = [(route, messages) for route, messages in told.items() if messages]
        return [
            Outbound(address, self._channels.peer(node), self._seal(node, messages))
            for (node, address), messages in packets
        ]

    def _seal(self, node: str, messages: list[PeerMessage]) -> bytes:
        return wire.seal(self._peer_key, wire.PEER, self.identity.node, node, wire.encode_peer(messages))

    def _refusals(self) -> list[Outbound]:
        refused, self._refused = self._refused, []
        return [Outbound("", r.channel, wire.seal_refusal(self.identity.node, r.channel, r.refusal)) for r in refused]

    # --- who has something to do ------------------------------------------------------------------

    def stir(self, cluster: int) -> None:
        """Somebody wants something of the replica of `cluster`, or is about to: it has a turn, and wakes."""
        self._stirred.add(cluster)
        self.sleep.wake(cluster)

    def host(self, replica: Replica) -> None:
        """Have a replica take part, also in the place of another of its cluster."""
        self.replicas[replica.cluster] = replica
        self._due_us.pop(replica.cluster, None)

    def _awake(self, now_us: int) -> list[Replica]:
        """Those that have something to do in this turn. Of many replicas most are quiet: one that is left out has no
        turn, as if its node were slower."""
        sleep, replicas, due_us = self.sleep, self.replicas, self._due_us
        if [*due_us] != [*replicas]:
            due_us = self._take_stock(now_us)
        self._next_due_us = NEVER_US
        if len(replicas) <= self.few_replicas:
            found = [replica for replica in replicas.values() if not (replica.stopped or sleep.holds(replica))]
        else:
            found, chosen, first_us = [], self._stirred.copy(), NEVER_US
            for cluster, at_us in due_us.items():
                if at_us <= now_us:
                    chosen.add(cluster)
                elif at_us < first_us and cluster not in chosen:
                    first_us = at_us
            self._next_due_us = first_us
            for cluster in chosen:
                replica = replicas.get(cluster)
                if replica is None or replica.stopped:
                    continue
                if sleep.holds(replica):
                    due_us[cluster] = NEVER_US  # Who wakes is stirred.
                else:
                    found.append(replica)
        self._stirred.clear()
        return found

    def _take_stock(self, now_us: int) -> dict[int, int]:
        """Replicas have come or gone: when each is due, which is now."""
        self._due_us = dict.fromkeys(self.replicas, now_us)
        # Those of sleepers, who have no turn, are kept: else nobody would see their leaders die.
        self._followed_nodes = {c: node for c, node in self._followed_nodes.items() if c in self.replicas}
        self._is_watched = False
        for replica in self.replicas.values():
            replica.states.is_crowded = len(self.replicas) > self.few_replicas
            replica.states.sharers = len(self.replicas)
            replica.reading.address = self.identity.address
        return self._due_us

    def _note_due(self, replicas: list[Replica], now_us: int) -> None:
        """What these have to do next, and whom they follow: the bus is told where that is news."""
        for replica in replicas:
            cluster = replica.cluster
            due_us = self._due_us[cluster] = self._due_of(replica, now_us)
            self._next_due_us = min(self._next_due_us, due_us)
            followed = self._followed(replica)
            if followed == self._followed_nodes.get(cluster):
                continue
            self._is_watched = False
            if followed is None:
                del self._followed_nodes[cluster]
            else:
                self._followed_nodes[cluster] = followed
        if not self._is_watched:
            self._is_watched = True
            self._bus.watch(dict(self._followed_nodes.values()))

    def _due_of(self, replica: Replica, now_us: int) -> int:
        due_us = min(replica.due_us(now_us, connected=self._bus.connected), now_us + LOOK_AGAIN_US)
        if len(self.replicas) > self.few_replicas and replica.counts_time:
            return min(due_us, now_us + STEP_US_MAX // 2)  # Lease time is counted in steps, that are to be no stalls.
        return due_us

    def _next_us(self, now_us: int) -> int:
        return max(now_us, min(self._feed.due_us(now_us), self.sleep.due_us, self._next_due_us))


def _parts(messages: list[PeerMessage]) -> list[list[PeerMessage]]:
    """Messages of one packet each, closed above wire.PACKET_BYTES_TARGET. What is left to a delegate has packets of its
    own, since who does not know it drops those; they are behind the rest."""
    if len(messages) == 1:
        return [messages]
    alone = [[message] for message in messages if type(message.message) is wire.LeftReads]
    if len(alone) == len(messages):
        return alone
    parts: list[list[PeerMessage]] = [[]]
    size = 0
    for message in messages:
        if type(message.message) is wire.LeftReads:
            continue
        if size > wire.PACKET_BYTES_TARGET:
            parts.append([])
            size = 0
        parts[-1].append(message)
        size += sum(map(len, getattr(message.message, "entries", ()))) + 64
    return parts + alone
