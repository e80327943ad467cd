"""One simulated installation: nodes, clients, network, faults and whoever watches, all from one seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from coordinator.consensus.entries import CONFIGURATION
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration, decode_configuration
from coordinator.consensus.raft.options import Options
from coordinator.replica.births import FIRST_EPOCH, first_log
from coordinator.replica.states import Compaction
from coordinator.wire import Channels, Token
from tests.simulation import faults
from tests.simulation.checkers import CHECKERS, OF_MIXED_WORK
from tests.simulation.clients import Client
from tests.simulation.clocks import DRIFT_PPM_MAX
from tests.simulation.disk import Stored
from tests.simulation.engines import ENGINES
from tests.simulation.faults import Fault
from tests.simulation.follower_reads import FollowerReads
from tests.simulation.injector import Injector
from tests.simulation.mixed import Mixed
from tests.simulation.mixed.mix import MixedMix
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.scheduler import Scheduler
from tests.simulation.watch import Watch
from tests.simulation.workload import Mix, Workload

REALM: Final = "51a1ab1e"


LATE_SHARE: Final = 0.08
LEFT_SHARE: Final = 0.4
"""Of the worlds in which one follower is a majority with its leader."""


class Settings(NamedTuple):
    """What a seed draws besides its faults."""

    engine: str
    nodes: int
    clients: int
    options: Options
    mix: Mix
    drift_ppm_max: int
    with_feed: bool
    compaction: Compaction
    apply_bytes_max: int
    turn_us: int
    """What a turn costs besides its fsync."""
    priorities: tuple[int, ...]
    cluster_name: str = "default"
    witnesses: tuple[int, ...] = ()
    """Which of the nodes are born as witnesses, counted from 0."""
    compare_us: int = 60_000_000
    mixed: MixedMix | None = None
    """None: plain work."""
    follower_reads_us: int = 0
    """At most so long between two reads on followers; 0: there are none."""
    late_us: int = 0
    """When the clients begin, and at half of it the faults. Where that is not at once, nodes let the quiet cluster
    sleep, as those with many do."""

    @property
    def disks_are_slow(self) -> bool:
        """A quarter of the worlds has those; with no draw of its own, so that what every seed does besides stays."""
        return self.options.stall_pause_us == 300_000

    @classmethod
    def draw(cls, engine: str, nodes: int, random: Random) -> Settings:
        witnesses = random.sample(range(nodes), random.choice((0, 0, 0, 1, nodes // 2, nodes // 2)) if nodes > 2 else 0)
        # Witnesses have to cut their logs, or nothing is lost with them.
        sizes = (3, 5, 5, 12, 60) if witnesses else (5, 5, 12, 30, 60, 10_000)
        clients = random.choice((2, 3, 3, 4))
        options = ENGINES[engine].options(random)
        if witnesses:
            # What witnesses have dropped is more than a learner lacks that has to be close behind.
            options = options._replace(promote_lag_entries_max=Options().promote_lag_entries_max)
        return cls(
            engine=engine,
            nodes=nodes,
            clients=clients,
            options=options,
            mix=Mix.draw(random),
            drift_ppm_max=random.choice((0, 500, DRIFT_PPM_MAX)),
            with_feed=random.random() < 0.03,
            apply_bytes_max=random.choice((2 * 1024 * 1024, 2 * 1024 * 1024, 400, 60)),
            turn_us=random.choice((60, 60, 60, 400, 2_500)),
            priorities=random.choice(((0,), (0,), (0,), (0, 0, 1), (2, 0, 1))),
            compaction=_with_size(Compaction(random.choice(sizes), random.choice((0, 0, 3, 20)))),
            witnesses=tuple(witnesses),
            compare_us=random.choice((150_000, 400_000, 1_000_000)),
            follower_reads_us=random.choice((0, 0, 30_000, 150_000)),
        )


def quiet_at_first(settings: Settings, random: Random) -> Settings:
    """Few worlds are: there the cluster soon sleeps, and faults and then clients wake it; no follower is read from."""
    if random.random() >= LATE_SHARE:
        return settings
    options = settings.options._replace(quiet_us=random.choice((100_000, 400_000)))
    return settings._replace(options=options, late_us=random.randrange(2_400_000, 4_500_000), follower_reads_us=0)


def leaves_reads(settings: Settings, random: Random) -> Settings:
    """Many of the worlds of two or three nodes are as such nodes are on one machine: a leader leaves reads to the
    follower that it sends everything to at once. By chance alone all that this takes would hardly ever come together.
    """
    if settings.nodes not in (2, 3) or random.random() >= LEFT_SHARE:
        return settings
    options = settings.options._replace(lease_reads=False, spare_us=random.choice((20_000, 60_000)))
    mix = settings.mix._replace(readers=random.choice((0, 1, 2)), pause_us_max=60_000)
    return settings._replace(options=options, mix=mix, witnesses=())


def _with_size(compaction: Compaction) -> Compaction:
    """Half of the worlds take their small snapshots for large ones: written beside the loop, and loaded in slices. A
    few cut their logs by bytes alone, or by both."""
    if compaction.trailing_entries:
        if compaction.snapshot_entries == 10_000 and compaction.trailing_entries == 20:
            return compaction._replace(snapshot_bytes=3_000, trailing_bytes=640)
        if compaction.snapshot_entries == 60 and compaction.trailing_entries == 20:
            return compaction._replace(crowded_entries=20, crowded_bytes=2_000)
        return compaction
    return compaction._replace(staged_bytes_min=0, load_bytes=100)


class World:
    def __init__(
        self, seed: int, settings: Settings, plan: list[Fault], trace: Callable[[int, str, str], None] | None = None
    ) -> None:
        """`trace` is told each thing that happens: when (true time), to whom, what."""
        self.seed = seed
        self.settings = settings
        self.engine_kind = ENGINES[settings.engine]
        self.trace = trace
        self.scheduler = Scheduler()
        self.faults: Counter[str] = Counter()
        self.channels = Channels(REALM)
        random = Random(f"{seed}:world")
        self.peer_key = random.randbytes(32)
        self.token = Token(REALM, f"{random.getrandbits(64):016x}", f"{random.getrandbits(256):064x}")
        self.cluster = random.getrandbits(63) | 1
        self.network = Network(self.scheduler, Random(f"{seed}:network"), self.channels, self.faults)
        mixed = None if settings.mixed is None else Mixed(self, settings.mixed, settings.mix)
        self.workload = Workload(self, settings.mix, mixed)
        self.follower_reads = FollowerReads(self, Random(f"{seed}:followers"), settings.follower_reads_us)
        self.injector = Injector(self, Random(f"{seed}:injector"), plan, self.faults)
        self.flipped: set[int] = set()
        """Replicas whose state has a flipped bit, also those whose disk was lost since: others heard their digests."""
        self.nodes = self._birth(random)
        self.clients = [Client(self, f"c{n}", Random(f"{seed}:c{n}")) for n in range(1, settings.clients + 1)]
        born = self.nodes[0].disk.load()
        assert born is not None, "a cluster is born with something in its journals"
        checkers = [kind for kind in CHECKERS if mixed is not None or kind not in OF_MIXED_WORK]
        self.watch = Watch([kind(self) for kind in checkers], born.log)
        self.watch.logs = {node.disk.replica: [*node.disk.terms] for node in self.nodes}
        if trace is not None:
            self.network.delivered = self._delivered

    def _birth(self, random: Random) -> list[Node]:
        """The first journals, as `coordinator/replica/births.py` makes them."""
        names = [f"node{number}" for number in range(1, self.settings.nodes + 1)]
        priorities = self.settings.priorities
        members = [
            Member(
                random.getrandbits(63) | 1,
                name,
                "",
                priorities[number % len(priorities)],
                witness=number in self.settings.witnesses,
            )
            for number, name in enumerate(names)
        ]
        self.born_members = members
        self.is_beyond_repair = False
        """Have so many replicas a flipped bit in their states that nobody can tell which are right?"""
        self.unborn: dict[int, Member] = {}
        """Replicas that were begun since, by identity: no number is used twice."""
        log = first_log(self.cluster, self.settings.cluster_name, FIRST_EPOCH, members, self.token)
        nodes = []
        for member in members:
            self.network.name_place(self.channels.peer(member.node), member.node)
            self.network.name_place(self.channels.client(member.node), member.node)
            stored = Stored(member.replica, log)
            nodes.append(Node(self, member.node, stored, Random(f"{self.seed}:{member.node}")))
        return nodes

    def begin(self) -> None:
        for node in self.nodes:
            node.start()
        for client in self.clients:
            if self.settings.late_us:
                self.scheduler.after(self.settings.late_us, client.start)
            else:
                client.start()
        self.follower_reads.begin()
        self.injector.begin()

    def configurations_in_use(self) -> list[Configuration]:
        """The last one that is committed, and those that are written behind it on some disk or were sent. A leader
        sends what it has not written yet; it may die then, and what is under way still arrive."""
        committed = len(self.watch.committed_entries)
        found = [next(entry for entry in reversed(self.watch.committed_entries) if entry[0] == CONFIGURATION)]
        for node in self.nodes:
            disk = node.disk
            behind = disk.entries[max(0, committed - disk.offset) :]
            found += [entry for entry in behind if entry[0] == CONFIGURATION]
        found += [entry for entry, index in self.watch.sent_configurations.items() if index > committed]
        return [decode_configuration(entry) for entry in found]

    def replicas_in_use(self) -> set[int]:
        """Members of the configurations in use."""
        return {member.replica for configuration in self.configurations_in_use() for member in configuration.members}

    def listeners_changed(self, name: str) -> None:
        """The mailbox of node `name` has another number of listeners."""
        for node in self.nodes:
            if node.is_up and node.name != name:
                node.bus.counts_changed(name)

    # --- the trace --------------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        if self.trace is not None:
            self.trace(self.scheduler.now_us, who, what)

    def _delivered(self, sender: str, receiver: str, channel: str, data: bytes) -> None:
        assert self.trace is not None
        from tests.simulation.trace import describe

        self.trace(self.scheduler.now_us, receiver, f"<- {sender}: {describe(data)}")


def draw_plan(seed: int) -> list[Fault]:
    return faults.draw(Random(f"{seed}:faults"))
