"""One seed from beginning to end: events with faults, then everything is healed, then the cluster must serve again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final, NamedTuple

from tests.simulation.clients import Client, Script
from tests.simulation.faults import Fault
from tests.simulation.history import Operation
from tests.simulation.mixed.mix import MixedMix
from tests.simulation.node import Node
from tests.simulation.time_limit import TooLong, time_limit
from tests.simulation.watch import NO_DEFECT, Violation, defect_of
from tests.simulation.workload import Workload
from tests.simulation.world import Settings, World, draw_plan, leaves_reads, quiet_at_first

EVENTS_MIN: Final = 2_250
"""Events under faults before the healing begins; a seed must have 2,000 in all to mean something."""
CHAOS_US_MAX: Final = 60_000_000
SERVE_US_MAX: Final = 5_000_000
"""Within this a healed cluster elects, catches up, and answers every client."""
FREE_US_MAX: Final = 10_000_000
"""Within this every lock is free: its holder lets go, or its session of 3 s at the most runs out, and then its
lock-delay; and whoever waited for it has done its work."""
PREFERRED_US_MAX: Final = 25_000_000
"""Within this whoever is preferred leads: a leader looks for one each 3 s at the most, and may try in vain."""
BEHIND_LOCKS_US: Final = 1_000_000
"""Of the first phase: so long after the last lock is free everybody's work is over."""
LOOK_US: Final = 20_000
SEED_CPU_S_MAX: Final = 30.0
"""A seed takes a fraction of a second of the processor's time; one that takes so long never ends."""
LIVENESS: Final = "liveness"
"""The property that the healed cluster serves again, which is put to each seed whose faults came to their end."""
PLAIN: Final = "plain"
MIXED: Final = "mixed"
WORKLOADS: Final = (MIXED, PLAIN)
"""What clients do: all that the state machine can, or keys and exclusive locks alone."""


AS_DRAWN: Final = 0
"""As many nodes as the seed says."""


def nodes_of(seed: int) -> int:
    """Of three seeds in four five nodes, where more can go wrong at a time; of the fourth three, as most have."""
    return 3 if seed % 4 == 3 else 5


class Result(NamedTuple):
    """What came of a seed. `violation`: checker and message; None: all held."""

    seed: int
    events: int
    faults: dict[str, int]
    elections: int
    committed: int
    checks: dict[str, int]
    healed_us: int
    """How long the healed cluster took to serve everybody."""
    lived_us: int
    """How much true time passed."""
    operations: int
    locks: int
    violation: tuple[str, str] | None
    happened: tuple[Fault, ...]


def run_seed(
    seed: int,
    *,
    engine: str = "raft",
    nodes: int = AS_DRAWN,
    workload: str = MIXED,
    plan: list[Fault] | None = None,
    trace: Callable[[int, str, str], None] | None = None,
    cpu_s_max: float | None = None,
) -> Result:
    """Run one seed. `nodes`: AS_DRAWN or how many; `workload` is one of WORKLOADS; `plan` replaces the faults that the
    seed draws. Whatever is raised, and a run that takes more than `cpu_s_max` (SEED_CPU_S_MAX), is a violation of the
    result."""
    limit_s = SEED_CPU_S_MAX if cpu_s_max is None else cpu_s_max
    world: World | None = None
    found: list[Violation] = []
    healed_us = 0
    with _finding(found, limit_s):
        world = _world(seed, engine, nodes or nodes_of(seed), workload, plan, trace)
        world.begin()
        world.scheduler.run(CHAOS_US_MAX, EVENTS_MIN)
        healed_us = _heal(world)
        world.watch.tell("finished")
    if world is None:
        return Result(seed, 0, {}, 0, 0, {NO_DEFECT: 1}, 0, 0, 0, 0, (found[0].checker, str(found[0])), ())
    with _finding(found, limit_s):
        for client in world.clients:
            client.die()
    if found:
        world.note("violation", f"{found[0].checker}: {found[0]}")
    return _result(world, found[0] if found else None, healed_us)


@contextmanager
def _finding(found: list[Violation], cpu_s_max: float) -> Iterator[None]:
    """Whatever is raised in here ends what is done, and is found; so is what does not end."""
    try:
        with time_limit(cpu_s_max):
            yield
    except Violation as violation:
        found.append(violation)
    except TooLong:
        found.append(Violation(NO_DEFECT, f"the run: still runs after {cpu_s_max:g} s of the processor's time"))
    except Exception as defect:  # noqa: BLE001 - outside of everybody's turns: by operators, faults, probes, checkers
        found.append(defect_of("the run", defect))


def _world(
    seed: int,
    engine: str,
    nodes: int,
    workload: str,
    plan: list[Fault] | None,
    trace: Callable[[int, str, str], None] | None,
) -> World:
    settings = Settings.draw(engine, nodes, Random(f"{seed}:settings"))
    settings = leaves_reads(settings, Random(f"{seed}:left"))
    settings = quiet_at_first(settings, Random(f"{seed}:late"))
    if workload == MIXED:
        settings = settings._replace(mixed=MixedMix.draw(Random(f"{seed}:mixed")))
    return World(seed, settings, draw_plan(seed) if plan is None else plan, trace)


def _heal(world: World) -> int:
    """The liveness phase: no more faults, no new requests; how long until the cluster serves. Raises Violation."""
    scheduler = world.scheduler
    since_us = scheduler.now_us
    world.note("world", "all faults are healed")
    world.injector.heal()
    world.workload.ending = True
    probes = Probes(world)
    served_us = _wait(world, since_us, SERVE_US_MAX, probes.missing)
    _wait(world, since_us, FREE_US_MAX, lambda: probes.held() or probes.missing())
    _wait(world, since_us, PREFERRED_US_MAX, lambda: probes.passed_over() or probes.missing())
    return served_us


def _wait(world: World, since_us: int, within_us: int, missing: Callable[[], str]) -> int:
    """Let time pass until nothing is missing; how long that took."""
    scheduler = world.scheduler
    while what := missing():
        if scheduler.now_us - since_us > within_us:
            raise Violation(LIVENESS, f"{within_us / 1e6:.0f} s without faults, and {what}")
        scheduler.run(scheduler.now_us + LOOK_US, 1 << 60)
    return scheduler.now_us - since_us


class Probes:
    """A last write and read by every client, once a leader is there; and everybody catching up."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._done = 0
        self._held_us = -BEHIND_LOCKS_US
        """When somebody was last seen to hold a lock or to wait for one."""
        for client in world.clients:
            client.add_script(self._probe(client, world.workload))

    def _probe(self, client: Client, workload: Workload) -> Script:
        while (yield from workload.put(client, "k0")).outcome != Operation.DONE:
            pass
        for key in range(workload.mix.keys):
            while (yield from workload.get(client, f"k{key}")).outcome != Operation.DONE:
                pass
        self._done += 1

    def held(self) -> str:
        """Locks that somebody holds or waits for, though every client has let go, or is dead."""
        leader = self._world.watch.leader
        if self._world.is_beyond_repair:
            return ""
        locks = sorted(leader.replica.machine.locks) if leader is not None and leader.replica is not None else []
        if not locks:
            return "" if self._world.workload.idle else "somebody's work is not over"
        return f"locks are still held: {', '.join(locks)}"

    def passed_over(self) -> str:
        """A voter that can lead is preferred to the one that leads; "" there is none."""
        leader = self._world.watch.leader
        if self._world.is_beyond_repair or leader is None or leader.replica is None:
            return ""
        ids = {node.disk.replica for node in self._world.nodes if _can_lead(node)}
        voters = leader.engine.configuration.voters
        able = [member for member in voters if member.replica in ids and not member.witness]
        own = [member.priority for member in able if member.replica == leader.disk.replica]
        preferred = [member.node for member in able if own and member.priority > own[0]]
        return f"{leader.name} leads though {preferred[0]} is preferred" if preferred else ""

    def _behind(self) -> list[str]:
        """Members of the cluster that live and have not applied everything."""
        committed = len(self._world.watch.committed_entries)
        leader = self._world.watch.leader
        members = () if leader is None or leader.engine is None else leader.engine.configuration.members
        ids = {member.replica for member in members}
        return [
            node.name
            for node in self._world.nodes
            if node.disk.replica in ids
            and not node.cannot_start
            and not node.disk.stopped
            and (node.engine is None or node.engine.applied_index < committed)
        ]

    def _flipped(self) -> tuple[list[str], bool]:
        """Voters that have a flipped bit in their state and take part all the same; and whether so many have one, since
        a leader's snapshot brought it to others, that nobody can tell which state is right."""
        leader = self._world.watch.leader
        if leader is None or leader.engine is None:
            return [], False
        voters = leader.engine.configuration.full_voter_ids
        flipped = [node for node in self._world.nodes if node.has_flipped_state and node.disk.replica in voters]
        return [node.name for node in flipped if not node.disk.stopped], 2 * len(flipped) >= len(voters)

    def missing(self) -> str:
        """What the cluster still owes; "" nothing."""
        world = self._world
        behind = self._behind()
        leader = world.watch.leader
        settled = (
            leader is not None
            and leader.leads
            and leader.engine.is_voter
            and leader.engine.is_fit
            and not leader.engine.configuration.is_joint
        )
        flipped, world.is_beyond_repair = self._flipped()
        if leader is not None and leader.replica is not None and leader.replica.machine.locks:
            self._held_us = world.scheduler.now_us
        # Whoever waits for a lock of a dead session waits for longer than this phase, and has some work behind it.
        waits = world.scheduler.now_us - self._held_us <= BEHIND_LOCKS_US
        served = self._done == len(world.clients) and (world.workload.idle or waits)
        if world.is_beyond_repair or (served and settled and not behind and not flipped):
            return ""
        leaders = ", ".join(node.name for node in world.nodes if node.leads) or "nobody"
        up = ", ".join(node.name for node in world.nodes if node.is_up)
        return (
            f"{leaders} leads, {self._done} of {len(world.clients)} clients were served, "
            f"behind are {', '.join(behind) or 'none'}, "
            f"flipped and not stopped are {', '.join(flipped) or 'none'}, up are {up}"
        )


def _can_lead(node: Node) -> bool:
    return node.replica is not None and not node.replica.stopped and node.engine.is_fit


def _result(world: World, violation: Violation | None, healed_us: int) -> Result:
    checks = Counter({NO_DEFECT: 1, LIVENESS: int(world.injector.stopped)})
    for checker in world.watch.checkers:
        checks[checker.name] += checker.checks
    return Result(
        world.seed,
        world.scheduler.events,
        dict(world.faults),
        world.watch.elections,
        len(world.watch.committed_entries) - 2,
        dict(checks),
        healed_us,
        world.scheduler.now_us,
        len(world.workload.history.operations) + len(world.workload.history.questions),
        world.workload.locks_taken,
        None if violation is None else (violation.checker, str(violation)),
        tuple(world.injector.happened),
    )
