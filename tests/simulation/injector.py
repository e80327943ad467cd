"""What each kind of fault does to a running cluster, and how it is undone.

A fault names its victim by what it is at that moment ("leader"), since who that will be is not known when it is drawn.
Every fault that took effect is counted by its kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from tests.simulation import operators
from tests.simulation.clients import Client
from tests.simulation.clocks import DRIFT_PPM_MAX
from tests.simulation.faults import Fault
from tests.simulation.network import Weather
from tests.simulation.node import Node
from tests.simulation.quorums import is_full_quorum, is_quorum

if TYPE_CHECKING:
    from tests.simulation.world import World

RESTART_US_MIN: Final = 30_000
RESTART_US_MAX: Final = 700_000
SLEEP_CUT_US: Final = 2_000
"""What a leader had sent before it is cut off arrives, and is answered."""
AWAY_US_MIN: Final = 700_000
SOON_US: Final = 300_000
"""Within this a replica that can be reached again has answered."""
DOUBLED_US: Final = 3_000_000
BLIND_US_MAX: Final = 3_000_000
_REPLAYED: Final = {"replayed-votes": "vote", "replayed-acknowledgements": "acknowledgement"}
"""Faults that are of whoever the moment is of, to the kind of messages that come again."""


class Injector:
    def __init__(self, world: World, random: Random, plan: list[Fault], faults: Counter[str]) -> None:
        self.world = world
        self.plan = plan
        self.happened: list[Fault] = []
        """Those of the plan that were begun so far."""
        self._random = random
        self._faults = faults
        self._armed: dict[str, list[Fault]] = {}
        self._undo: dict[int, Callable[[], None]] = {}
        self._undo_number = 0
        self._deposing: dict[str, Fault] = {}
        """Leaders that are cut off until another one is elected."""
        self._returns: dict[str, int] = {}
        """Who was cut off so to what mends it."""
        self._away: dict[int, Fault] = {}
        """What brings back a client that is cut off until its session is ended."""
        self.wanted: set[int] = set()
        """Learners that operators want to vote, as soon as a leader agrees."""
        self.stopped = False

    def begin(self) -> None:
        for fault in self.plan:
            self.world.scheduler.at(fault.at_us, self._due, fault)

    def _due(self, fault: Fault) -> None:
        if self.stopped:
            self.world.scheduler.nothing_happened()
        elif fault.moment:
            self._armed.setdefault(fault.moment, []).append(fault)
        else:
            self._inject(fault)

    def moment(self, name: str, whose: Node | Client) -> None:
        """Something happened that faults may wait for."""
        if name == "elected" and self._deposing:
            self._deposed(whose)
        if name == "expiring" and self._away:
            assert isinstance(whose, Node)
            away, self._away = self._away, {}
            for number, fault in away.items():
                self.world.scheduler.after(0, self._come_back_late, fault, whose, number)
        if self._armed and self._armed.get(name):
            armed = self._armed.pop(name)
            for fault in armed:
                # Not within what is happening now, but right behind it.
                self.world.scheduler.after(0, self._inject, fault, whose)

    def _inject(self, fault: Fault, whose: Node | Client | None = None) -> None:
        """`whose`: who the moment that it waited for was of."""
        if self.stopped:
            return
        self.happened.append(fault)
        if fault.kind in _REPLAYED:
            done = whose is not None and self._replayed(_REPLAYED[fault.kind], whose.name)
        else:
            do: Callable[[Fault], bool] = getattr(self, "_" + fault.kind.replace("-", "_"))
            done = do(fault)
        if done:
            self._faults[fault.kind] += 1
            self.world.note("fault", str(fault))

    # --- undoing ----------------------------------------------------------------------------------

    def _later(self, fault: Fault, undo: Callable[[], None]) -> int:
        """Undo it when its time is over, or when all is healed, whichever comes first. The number says which it is."""
        self._undo_number += 1
        number = self._undo_number
        self._undo[number] = undo
        self.world.scheduler.after(fault.duration_us, self._undo_now, number)
        return number

    def _undo_now(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def restart_later(self, node: Node) -> None:
        """A process that ended by itself is started again by whoever looks after it."""
        self.world.scheduler.after(self._random.randrange(RESTART_US_MIN, RESTART_US_MAX), node.start)

    def heal(self) -> None:
        """No more faults; everything that can be mended is."""
        self.stopped = True
        self._armed = {}
        for number in [*self._undo]:
            self._undo_now(number)
        world = self.world
        world.network.weather = []
        world.network.cuts.clear()
        for node in world.nodes:
            node.disk.full = False
            if node.is_up:
                node.resume()
                node.journal.fate = ""
                node.journal.slow_us = 0
                node.bus.sends_left = None
                if node.bus.connected and not node.bus.hears:
                    node.bus.notice_loss()
            else:
                node.start()
        for client in world.clients:
            client.resume()
            client.start()

    # --- whom it hits -----------------------------------------------------------------------------

    def _node(self, fault: Fault) -> Node | None:
        """The victim; None where there is none of the kind now."""
        up = [node for node in self.world.nodes if node.is_up]
        leaders = [node for node in up if node.leads]
        if fault.who == "leader":
            up = leaders
        elif fault.who == "follower":
            up = [node for node in up if node not in leaders]
        return up[fault.salt % len(up)] if up else None

    def _client(self, fault: Fault) -> Client | None:
        up = [client for client in self.world.clients if client.is_up]
        holding = [client for client in up if client.leases]
        if fault.level < 0.6 and holding:
            up = holding
        return up[fault.salt % len(up)] if up else None

    def _client_with_session(self, fault: Fault) -> Client | None:
        alive = [client for client in self.world.clients if client.is_up and client.has_session]
        return alive[fault.salt % len(alive)] if alive else None

    # --- messages ---------------------------------------------------------------------------------

    def _weather(self, fault: Fault, kind: str, share: float, delay_us: int) -> bool:
        places: frozenset[str] = frozenset()
        if fault.who != "all":
            node = self._node(fault)
            if node is None:
                return False
            places = frozenset((node.name,))
        weather = Weather(kind, share, delay_us, places)
        network = self.world.network
        network.weather.append(weather)

        def clear() -> None:
            if weather in network.weather:
                network.weather.remove(weather)

        self._later(fault, clear)
        return True

    def _loss(self, fault: Fault) -> bool:
        return self._weather(fault, "loss", 0.02 + 0.6 * fault.level**2, 0)

    def _duplication(self, fault: Fault) -> bool:
        """Copies come at once, or when everybody has forgotten the first."""
        late_us = (2_000, 50_000, 500_000, 4_000_000)[fault.salt % 4]
        return self._weather(fault, "duplication", 0.05 + 0.4 * fault.level, late_us)

    def _reordering(self, fault: Fault) -> bool:
        return self._weather(fault, "reordering", 0.1 + 0.6 * fault.level, (3_000, 30_000)[fault.salt % 2])

    def _delay(self, fault: Fault) -> bool:
        return self._weather(fault, "delay", 0.05 + 0.5 * fault.level, (20_000, 200_000, 1_500_000)[fault.salt % 3])

    def _slow_link(self, fault: Fault) -> bool:
        return self._weather(fault, "slow-link", 1.0, (5_000, 40_000, 150_000, 350_000)[fault.salt % 4])

    def _replay(self, fault: Fault) -> bool:
        return self.world.network.replay(3 + int(60 * fault.level))

    def _replayed(self, kind: str, name: str) -> bool:
        """What node `name` was told of that kind in the past comes again: words of elections to who campaigns,
        acknowledgements of an earlier leadership to who leads again."""
        return self.world.network.replay_kept(kind, self.world.channels.peer(name))

    def _replayed_snapshot(self, fault: Fault) -> bool:
        """Snapshots come again, whole or in parts; and for a while each part that is sent comes twice."""
        network = self.world.network
        network.doubled = "snapshot"
        self._later(fault._replace(duration_us=DOUBLED_US), lambda: setattr(network, "doubled", ""))
        replayed = [self._replayed("snapshot", node.name) for node in self.world.nodes]
        return any(replayed)

    # --- the network ------------------------------------------------------------------------------

    def _cut(self, fault: Fault, ways: list[tuple[str, str]]) -> bool:
        network = self.world.network
        network.cut(ways)
        self._later(fault, lambda: network.mend(ways) if network.cuts else None)
        return True

    def _sides(self, fault: Fault, one: list[str], other: list[str]) -> list[tuple[str, str]]:
        """Both ways between two sides. Clients are on one of them, or see both."""
        random = Random(fault.salt)
        ways = [(a, b) for a in one for b in other] + [(b, a) for a in one for b in other]
        for client in self.world.clients:
            side = random.choice((one, other, None, None))
            if side is not None:
                ways += [(client.name, name) for name in side] + [(name, client.name) for name in side]
        return ways

    def _partition(self, fault: Fault) -> bool:
        """Two sides, drawn; of the leader: a minority with it in."""
        random = Random(fault.salt)
        names = [node.name for node in self.world.nodes]
        random.shuffle(names)
        size = random.randint(1, max(1, len(names) // 2))
        leader = self._node(fault) if fault.who == "leader" else None
        if leader is not None:
            names.remove(leader.name)
            names.insert(0, leader.name)
            size = random.randint(1, max(1, (len(names) - 1) // 2))
        return self._cut(fault, self._sides(fault, names[:size], names[size:]))

    def _one_way_partition(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        others = [other.name for other in self.world.nodes if other is not node]
        if not others:
            return False
        if fault.level < 0.5:
            others = others[: 1 + fault.salt % len(others)]
        if fault.salt & 1:
            return self._cut(fault, [(node.name, other) for other in others])
        return self._cut(fault, [(other, node.name) for other in others])

    def _isolated_leader(self, fault: Fault) -> bool:
        """From its peers; clients still reach it, or some of them do."""
        node = self._node(fault)
        if node is None:
            return False
        others = [other.name for other in self.world.nodes if other is not node]
        return self._cut(fault, self._sides(fault, [node.name], others))

    def _redis_restart(self, fault: Fault) -> bool:
        world = self.world
        if not world.network.up:
            return False
        world.network.go_down()
        for node in world.nodes:
            if node.is_up:
                node.bus.notice_loss()
        for client in world.clients:
            client.channel.lose()
        self._later(fault, world.network.come_up)
        return True

    def _lost_connection(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or not node.bus.connected:
            return False
        node.bus.notice_loss()
        return True

    def _deaf(self, fault: Fault) -> bool:
        """Redis dropped the node's subscription, and the node does not know it."""
        node = self._node(fault)
        if node is None or not node.bus.hears:
            return False
        bus = node.bus
        bus.lose_subscription()
        self._later(fault, bus.notice_loss)
        return True

    # --- processes --------------------------------------------------------------------------------

    def _end(self, fault: Fault, node: Node, why: str, *, silently: bool = False) -> bool:
        node.die(why, silently=silently)
        self._later(fault, node.start)
        return True

    def _crash(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and self._end(fault, node, "between two turns")

    def _silent_death(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and self._end(fault, node, "with its machine", silently=True)

    def _power_loss(self, fault: Fault) -> bool:
        """Of all machines, or of any of them at once: one side of a change of membership, it may be."""
        random = Random(fault.salt)
        victims = [node for node in self.world.nodes if node.is_up]
        if fault.level < 0.7:
            victims = [node for node in victims if random.random() < 0.3 + fault.level]
        for node in victims:
            self._end(fault, node, "as the power fails")
        return bool(victims)

    def _crash_at_commit(self, fault: Fault, fate: str) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        node.journal.fate = fate
        return True

    def _crash_before_commit(self, fault: Fault) -> bool:
        return self._crash_at_commit(fault, "before")

    def _crash_after_early_send(self, fault: Fault) -> bool:
        """Of a leader: its followers have what it is about to write."""
        return self._crash_at_commit(fault, "before")

    def _crash_within_commit(self, fault: Fault) -> bool:
        return self._crash_at_commit(fault, "within")

    def _crash_after_commit(self, fault: Fault) -> bool:
        return self._crash_at_commit(fault, "after")

    def _crash_while_sending(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        node.die_while_sending(fault.salt % 6)
        return True

    def _pause(self, fault: Fault) -> bool:
        return self._stop(fault, clock_stops=False)

    def _stumble(self, fault: Fault) -> bool:
        """A pause within a turn: between what it takes in and the look at its clock, or between two sends."""
        node = self._node(fault)
        if node is None:
            return False
        node.bus.stumbles[("drain", "publish")[fault.salt & 1]] = fault.duration_us
        return True

    def _suspend(self, fault: Fault) -> bool:
        return self._stop(fault, clock_stops=True)

    def _stop(self, fault: Fault, *, clock_stops: bool) -> bool:
        node = self._node(fault)
        if node is None or node.paused:
            return False
        node.pause(clock_stops=clock_stops)
        self.world.note(node.name, "stands still")
        self._later(fault, node.resume)
        return True

    def _stall(self, fault: Fault) -> bool:
        """Almost too long a pause. Redis may have given up the connection meanwhile: what was unread is lost."""
        node = self._node(fault)
        if node is None or not self._stop(fault, clock_stops=False):
            return False
        if fault.salt & 1:
            self.world.scheduler.after(fault.duration_us, node.bus.notice_loss)
        return True

    def _dozing_followers(self, fault: Fault) -> bool:
        """A minority of followers stands still: they find all that came meanwhile at once, entries and snapshots."""
        random = Random(fault.salt)
        awake = [node for node in self.world.nodes if node.is_up and not node.leads and not node.paused]
        most = (len(self.world.nodes) - 1) // 2
        dozing = random.sample(awake, min(len(awake), random.randint(1, most))) if most else []
        for node in dozing:
            node.pause(clock_stops=False)
            self._later(fault, node.resume)
        return bool(dozing)

    def _sleeping_leader(self, fault: Fault) -> bool:
        """A leader's machine is suspended, and cut off from its peers when it wakes: it hears nobody for a while, and
        by its clock no time has passed. Clients still ask it; some of them see nobody else, for longer than that."""
        node = self._node(fault)
        if node is None or node.paused:
            return False
        node.pause(clock_stops=True)
        self.world.note(node.name, "sleeps")
        others = [other.name for other in self.world.nodes if other is not node]
        self.world.scheduler.after(SLEEP_CUT_US, self._cut_off, fault, node.name, others)
        wake_us = int(fault.duration_us * (0.6 + 0.35 * fault.level))
        self._later(fault._replace(duration_us=wake_us), node.resume)
        return True

    def _deposed_leader_returns(self, fault: Fault) -> bool:
        """A leader is cut off with what it has just written, and some clients go on writing to it. When another one is
        elected it is there again: as that one dies (Raft, figure 8), or to find all that came meanwhile at once."""
        node = self._node(fault)
        if node is None or node.name in self._deposing or len(self.world.nodes) < 3:
            return False
        self._deposing[node.name] = fault
        others = [other.name for other in self.world.nodes if other is not node]
        random = Random(fault.salt)
        ways = [way for other in others for way in ((node.name, other), (other, node.name))]
        for client in self.world.clients:
            if random.random() < 0.6:
                ways += [way for other in others for way in ((client.name, other), (other, client.name))]
        self.world.network.cut(ways)
        self._undo_number += 1
        number = self._undo_number

        def mend() -> None:
            self._deposing.pop(node.name, None)
            self.world.network.mend(ways)

        self._undo[number] = mend
        self._returns[node.name] = number
        self.world.scheduler.after(fault.duration_us, self._undo_now, number)
        return True

    def _deposed(self, elected: Node | Client) -> None:
        """Another leader is elected: it has a moment, in which it commits little or nothing."""
        for name, fault in [*self._deposing.items()]:
            if name != elected.name:
                del self._deposing[name]
                self.world.scheduler.after(int(15_000 * fault.level**2), self._comes_back, name, elected, fault)

    def _comes_back(self, name: str, usurper: Node, fault: Fault) -> None:
        if self.stopped:
            return
        if fault.salt & 1:
            # Where nobody is told of its death, the others wait for their time-outs, and the old one may be first.
            usurper.die("soon after its election", silently=fault.salt % 3 > 0)
            self._later(fault, usurper.start)
        else:
            old = next(node for node in self.world.nodes if node.name == name)
            if old.is_up and not old.paused:
                old.pause(clock_stops=False)
                shortly = fault._replace(duration_us=fault.duration_us // 8)
                self._later(shortly, old.resume)
                if fault.level < 0.5:
                    # It takes all others longer to commit what it finds when it wakes.
                    self._weather(shortly._replace(who="all"), "slow-link", 1.0, 20_000 + int(60_000 * fault.level))
        self._undo_now(self._returns.pop(name, 0))

    def _coup(self, fault: Fault) -> bool:
        """A leader is cut off from its peers at the very moment when they can elect another at once: they saw its
        channel fall silent, or it has told one of them to campaign, or they began anew and an operator asks one
        to."""
        node = self._node(fault)
        if node is None:
            return False
        others = [other for other in self.world.nodes if other is not node]
        if not others:
            return False
        way = fault.salt % 3
        if way == 0:
            node.bus.notice_loss()
        elif way == 1:
            operators.transfer(self.world, node, fault.salt // 3)
        else:
            for other in others:
                other.die("with all followers")
                self.world.scheduler.after(RESTART_US_MIN + int(fault.level * 20_000), other.start)
            usurper = others[fault.salt // 3 % len(others)]
            for delay_us in range(150_000, 450_000, 50_000):
                self.world.scheduler.after(delay_us, self._usurp, usurper)
        # It hears nothing from here on; what it is just sending still arrives.
        self._cut(fault, [(other.name, node.name) for other in others])
        self.world.scheduler.after(SLEEP_CUT_US, self._cut_off, fault, node.name, [other.name for other in others])
        return True

    def _usurp(self, node: Node) -> None:
        if not self.stopped and node.is_up:
            operators.campaign(node)

    def _needed_witness(self, fault: Fault) -> bool:
        """The last entries are on a leader and the witnesses alone when the leader dies, it may be for good: a witness
        must bring all others up to date. A learner lacks more than that, since it is cut off for longer."""
        leader = self._node(fault)
        if leader is None or not leader.leads:
            return False
        configuration = leader.engine.configuration
        here = {node.disk.replica: node for node in self.world.nodes}
        witnesses = {m.replica for m in configuration.voters if m.witness}
        if not is_quorum(configuration, witnesses | {leader.disk.replica}):
            return False
        full = [here[r] for r in configuration.full_voter_ids if r in here and here[r] is not leader]
        learners = [here[m.replica] for m in configuration.learners if m.replica in here and not m.witness]
        if not learners and fault.salt % 8 and full:
            chosen = full[fault.salt // 8 % len(full)]
            if operators.demote(self.world, leader, chosen.disk.replica):
                full.remove(chosen)
                learners = [chosen]
        others = [node.name for node in self.world.nodes]
        apart = [way for one in learners for name in others for way in ((one.name, name), (name, one.name))]
        self._cut(fault, apart)
        alone_us = int(fault.duration_us * (0.4 + 0.5 * fault.level))
        self.world.scheduler.after(alone_us, self._leave_to_witnesses, fault, leader, full, alone_us)
        return True

    def _leave_to_witnesses(self, fault: Fault, leader: Node, full: list[Node], after_us: int) -> None:
        if self.stopped or not leader.leads:
            return
        left = fault._replace(duration_us=fault.duration_us - after_us)
        self._cut(left, [way for one in full for way in ((leader.name, one.name), (one.name, leader.name))])
        self.world.scheduler.after(left.duration_us, self._die_needed, fault, leader)

    def _die_needed(self, fault: Fault, leader: Node) -> None:
        if self.stopped or not leader.leads:
            return
        is_lost = fault.salt % 4 == 0 and self._may_lose(leader)
        leader.die("and the last entries are with witnesses alone")
        if is_lost:
            leader.disk.wipe()
        self._later(fault, leader.start)

    def _cut_off(self, fault: Fault, name: str, others: list[str]) -> None:
        """Cut a leader off from its peers; some clients see nobody else, for longer than that."""
        if self.stopped:
            return
        self._cut(fault, [(name, other) for other in others] + [(other, name) for other in others])
        random = Random(fault.salt)
        blind = [client.name for client in self.world.clients if random.random() < 0.5]
        ways = [way for client in blind for other in others for way in ((client, other), (other, client))]
        self._cut(fault._replace(duration_us=fault.duration_us + random.randrange(BLIND_US_MAX)), ways)

    # --- disks ------------------------------------------------------------------------------------

    def _failed_fsync(self, fault: Fault) -> bool:
        return self._crash_at_commit(fault, "fail")

    def _full_disk(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        disk = node.disk
        disk.full = True
        self._later(fault, lambda: setattr(disk, "full", False))
        return True

    def _slow_disk(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        journal = node.journal
        journal.slow_us = (2_000, 20_000, 150_000, 800_000)[fault.salt % 4]
        self._later(fault, lambda: setattr(journal, "slow_us", 0))
        return True

    def _may_lose(self, lost: Node, *, flips: bool = False) -> bool:
        """A cluster of 2f + 1 survives the loss of f disks for good; more than that nobody survives. And where states
        differ, most of those that have one must be right."""
        world = self.world
        gone = {node.disk.replica for node in world.nodes if node is lost or node.is_lost}
        kept = {node.disk.replica for node in world.nodes} - gone
        differ = flips or any(node.flipped for node in world.nodes)
        configurations = world.configurations_in_use()
        for node in world.nodes:
            if node.engine is not None:
                configurations += [configuration for _, configuration in node.engine.configurations]
        return all(
            is_quorum(configuration, kept) and (not differ or is_full_quorum(configuration, kept))
            for configuration in configurations
            if configuration.voters
        )

    def _lost_disk(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or not self._may_lose(node):
            return False
        node.die("and its disk is lost")
        node.disk.wipe()
        self._later(fault, node.start)
        return True

    def _bit_flip(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or not self._may_lose(node):
            return False
        node.die("and a bit of its journal has flipped")
        node.disk.damaged = True
        self._later(fault, node.start)
        return True

    def _memory_flip(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or node.replica is None or node.engine.is_witness or node.replica.stopped:
            return False
        if not self._may_lose(node, flips=True):
            return False
        node.flip()
        return True

    # --- clocks -----------------------------------------------------------------------------------

    def _clocks_drift_apart(self, fault: Fault) -> bool:
        """A client's clock runs as slowly as it may, and all nodes' as fast; and nobody hears the client until its
        session is ended."""
        client = self._client_with_session(fault)
        if client is None or not any(node.leads for node in self.world.nodes):
            return False
        client.clock.drift(-DRIFT_PPM_MAX)
        for node in self.world.nodes:
            node.clock.drift(DRIFT_PPM_MAX)
        self._cut(fault, [(client.name, node.name) for node in self.world.nodes])
        self.moment("client-gone", client)
        return True

    def _wall_clock_jump(self, fault: Fault) -> bool:
        """Somebody sets the clock on the wall, by seconds or by years. Nothing may depend on it."""
        node = self._node(fault)
        if node is None:
            return False
        node.clock.set_wall((fault.salt - 32_768) * fault.duration_us)
        return True

    # --- operators --------------------------------------------------------------------------------

    def _transfer(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.transfer(self.world, node, fault.salt)

    def _campaign_request(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.campaign(node)

    def _step_down(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.step_down(node)

    def _new_replica(self, fault: Fault) -> bool:
        return operators.new_replica(self.world, Random(fault.salt))

    def _membership_change(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.change_membership(self.world, node, Random(fault.salt))

    def _hasty_promotion(self, fault: Fault) -> bool:
        """An operator wants a learner to vote that answered of late and lags, since it stands still; and asks for some
        voter to become a learner where there is none."""
        leader = self._node(fault)
        if leader is None or not leader.leads:
            return False
        configuration = leader.engine.configuration
        here = {node.disk.replica: node for node in self.world.nodes if node.is_up}
        learners = [here[m.replica] for m in configuration.learners if m.replica in here and not m.witness]
        if learners:
            self._promote_late(fault, leader, learners[fault.salt % len(learners)])
            return True
        voters = [here[r] for r in configuration.full_voter_ids if r in here and here[r] is not leader]
        if not voters:
            return False
        chosen = voters[fault.salt % len(voters)]
        if not operators.demote(self.world, leader, chosen.disk.replica):
            return False
        self.world.scheduler.after(fault.duration_us, self._promote_late, fault, leader, chosen)
        return True

    def _promote_late(self, fault: Fault, leader: Node, learner: Node) -> None:
        if self.stopped or not learner.is_up or learner.paused:
            return
        if fault.level < 0.5:
            self._promote_at_once(fault, learner)
            return
        learner.pause(clock_stops=False)
        self._later(fault, learner.resume)
        for share in (0.3, 0.6, 0.9):
            asked_us = int(share * fault.duration_us)
            self.world.scheduler.after(asked_us, self._promote, leader, learner.disk.replica)

    def _promote_at_once(self, fault: Fault, learner: Node) -> None:
        """The learner is cut off so long that nobody waits for it, and is asked for as soon as it answers again: before
        it has what it lacks."""
        others = [node.name for node in self.world.nodes if node is not learner]
        away = fault._replace(duration_us=AWAY_US_MIN + fault.duration_us)
        self._cut(away, [way for other in others for way in ((learner.name, other), (other, learner.name))])
        replica = learner.disk.replica
        self.world.scheduler.after(away.duration_us, self.wanted.add, replica)
        self.world.scheduler.after(away.duration_us + SOON_US, self.wanted.discard, replica)

    def turned(self, node: Node) -> None:
        """A turn of `node` is over, and operators are waiting for a leader that makes a voter of a learner."""
        if not self.stopped and node.leads:
            self.world.scheduler.after(0, self._promote_wanted, node)

    def _promote_wanted(self, leader: Node) -> None:
        for replica in sorted(self.wanted):
            if leader.leads and operators.promote(self.world, leader, replica):
                self.wanted.discard(replica)

    def _promote(self, leader: Node, replica: int) -> None:
        if not self.stopped and leader.leads:
            operators.promote(self.world, leader, replica)

    def _removed_laggard(self, fault: Fault) -> bool:
        """A voter hears nothing, and lags; an operator makes a learner of it, which may come to nothing, and it hears
        again."""
        leader = self._node(fault)
        if leader is None or not leader.leads:
            return False
        here = {node.disk.replica: node for node in self.world.nodes if node.is_up}
        voters = [here[r] for r in leader.engine.configuration.full_voter_ids if r in here and here[r] is not leader]
        if not voters:
            return False
        chosen = voters[fault.salt % len(voters)]
        self._cut(fault, [(leader.name, chosen.name)])
        asked_us = int(fault.duration_us * (0.4 + 0.5 * fault.level))
        self.world.scheduler.after(asked_us, self._demote, leader, chosen.disk.replica)
        return True

    def _demote(self, leader: Node, replica: int) -> None:
        if not self.stopped and leader.leads:
            operators.demote(self.world, leader, replica)

    # --- clients ----------------------------------------------------------------------------------

    def _client_crash(self, fault: Fault) -> bool:
        client = self._client(fault)
        if client is None:
            return False
        client.die()
        self.world.note(client.name, "dies")
        self._later(fault, client.start)
        self.moment("client-gone", client)
        return True

    def _client_pause(self, fault: Fault) -> bool:
        client = self._client(fault)
        if client is None or client.paused:
            return False
        client.pause()
        self._later(fault, client.resume)
        self.moment("client-gone", client)
        return True

    def _client_cut(self, fault: Fault) -> bool:
        """A client that reaches no node, or one alone."""
        client = self._client(fault)
        if client is None:
            return False
        names = [node.name for node in self.world.nodes]
        if fault.salt & 1:
            names.pop(fault.salt // 2 % len(names))
        self._cut(fault, [way for name in names for way in ((client.name, name), (name, client.name))])
        self.moment("client-gone", client)
        return True

    def _client_unheard(self, fault: Fault) -> bool:
        """What a client is told comes late, and soon nothing of what it sends comes at all: an answer to what it asked
        first comes behind the sending of what is lost."""
        client = self._client_with_session(fault)
        if client is None:
            return False
        late_us = (300_000, 500_000, 800_000, 1_200_000)[fault.salt % 4]
        weather = Weather("late-answer", 1.0, late_us, frozenset((client.name,)))
        network = self.world.network
        network.weather.append(weather)

        def clear() -> None:
            if weather in network.weather:
                network.weather.remove(weather)

        self._later(fault, clear)
        self.world.scheduler.after(200_000 + int(400_000 * fault.level), self._mute, fault, client)
        return True

    def _mute(self, fault: Fault, client: Client) -> None:
        if self.stopped or not client.is_up:
            return
        self._cut(fault, [(client.name, node.name) for node in self.world.nodes])
        self.moment("client-gone", client)

    def _late_keep_alive(self, fault: Fault) -> bool:
        """A client is cut off until a leader has begun to end its session, or another's, and is back at that very
        moment."""
        client = self._client_with_session(fault)
        if client is None:
            return False
        ways = [way for node in self.world.nodes for way in ((client.name, node.name), (node.name, client.name))]
        self.world.network.cut(ways)
        self._away[self._later(fault, lambda: self.world.network.mend(ways))] = fault
        self.moment("client-gone", client)
        return True

    def _come_back_late(self, fault: Fault, leader: Node, number: int) -> None:
        """What the leader sends to the others is lost: for a while the end of the session is not committed."""
        if self.stopped or number not in self._undo:
            return
        self._undo_now(number)
        others = [node.name for node in self.world.nodes if node is not leader]
        lost_us = (60_000, 150_000, 250_000, 400_000)[fault.salt % 4]
        self._cut(fault._replace(duration_us=lost_us), [(leader.name, other) for other in others])

    def _client_clock_jump(self, fault: Fault) -> bool:
        client = self._client(fault)
        if client is None:
            return False
        client.clock.jump(fault.duration_us)
        return True

    def _client_lost_connection(self, fault: Fault) -> bool:
        client = self._client(fault)
        if client is None or not client.channel.connected:
            return False
        client.channel.lose()
        return True
