"""Quiet clusters sleep: no turn, no message, no cost, until somebody wants something of them.

Of a cluster that is quiet (`raft/rounds.py`) and whose replica here has nothing under way, nobody who waits and
nothing to count, the leader would say the same again and again: "I lead this term, and you have all of my log". So the
node says it, to each other node in one message for all its sleeping leaders, every BEAT_US; and there the node answers
for all followers of whom it is true, and names those of whom it is not. That is a heartbeat and its answer, and means
what these mean. The engines hear of it when they wake (`raft/sleep.py`), before anything else happens to them.

A leader sleeps while all its followers' nodes answer, and its followers for as long as they are named. Whoever is
spoken to, suspects its leader, or has something to do, wakes. Where a node does not answer twice, all leaders that
have a follower there wake, in time to beat themselves before check-quorum ends them. Where a node's word stays away,
the followers wake in time for their own election time-outs, which count from the last word. Pure; the turn does the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from coordinator.consensus.engine import NEVER_US, Heard, Heartbeat, Role
from coordinator.replica.replica import Replica
from coordinator.wire import PeerWord, SleepAnswer, SleepBeat, Sleeper

BEAT_US: Final = 240_000
"""Between two words to another node. Only replicas sleep that would beat as often when quiet (`Options`)."""
SILENCE_US: Final = 2 * BEAT_US
"""A node whose last answered word is this old does not answer."""
DEAF_US: Final = BEAT_US * 9 // 4
"""Without a word for so long followers wake: after two, and before the shortest election time-out."""
PAUSE_US: Final = 2_000_000
"""A cluster of which another node says that its follower is awake is left so for this long."""
ASK_AGAIN_US: Final = 5_000_000
"""A node that never answered may be of a version that does not know how: it is tried again this seldom."""


class _Led(NamedTuple):
    """A leader that sleeps. `since`: the first word that speaks for it. `until_us`: when it has something to do."""

    heartbeat: Heartbeat
    followers: Mapping[int, str]
    since: int
    until_us: int


class _Peer:
    """A node that followers of leaders here are on. The last of its answers: to which word, and when that was sent."""

    def __init__(self) -> None:
        self.open: dict[int, int] = {}
        """Words that it has not answered yet: when each was sent."""
        self.number = 0
        self.heard = Heard(-NEVER_US, -NEVER_US)
        self.asked_us = -NEVER_US
        self.address = ""
        """As the log says."""
        self.told: list[Sleeper] = []
        """The leaders that the last word to it spoke for."""

    def answers(self, now_us: int) -> bool:
        return now_us - self.heard.sent_us < SILENCE_US


class _Guard:
    """What another node says of leaders that replicas here follow."""

    def __init__(self) -> None:
        self.clusters: dict[int, Replica] = {}
        """Whose followers sleep here."""
        self.said: list[Sleeper] | None = None
        """What it said last, where all of that sleeps and nobody else does; None: what it says next is looked at."""
        self.heard_us = 0
        self.still_us = 0
        """How long the node here has stood still since."""
        self.numbers: dict[int, int] = {}
        """Start of that node to the number of the last word that it said then."""
        self.address = ""
        """Of that node, as the log says."""


class Sleep:
    def __init__(self, boot: int, replicas: Mapping[int, Replica], stirred: set[int]) -> None:
        """`boot` is this process's alone. `replicas` of the node, by cluster; `stirred`: clusters that are to have a
        turn, the ones that wake among them."""
        self._boot = boot
        self._replicas = replicas
        self._stirred = stirred
        self._asleep: dict[int, Replica] = {}
        """By cluster."""
        self._led: dict[int, _Led] = {}
        self._followed: dict[int, str] = {}
        """Cluster to the node of the leader."""
        self._peers: dict[str, _Peer] = {}
        self._guards: dict[str, _Guard] = {}
        self._not_before_us: dict[int, int] = {}
        """Clusters that are not to sleep before that."""
        self._number = 0
        self._beat_us = 0
        self._until_us = NEVER_US
        self._words: list[tuple[str, str, PeerWord]] = []

    def holds(self, replica: Replica) -> bool:
        """Does it sleep?"""
        return self._asleep.get(replica.cluster) is replica

    @property
    def count(self) -> int:
        """How many replicas of the node sleep."""
        return len(self._asleep)

    # --- waking -----------------------------------------------------------------------------------

    def wake(self, cluster: int) -> None:
        """Somebody wants something of it, or it has something to do: tell its engine what was said meanwhile."""
        replica = self._asleep.pop(cluster, None)
        if replica is None:
            return
        self._stirred.add(cluster)
        led = self._led.pop(cluster, None)
        if led is None:
            guard = self._guards[self._followed.pop(cluster)]
            guard.said = None
            del guard.clusters[cluster]
            replica.engine.heard(guard.heard_us)
            replica.engine.stood_still(guard.still_us)
            return
        peers = {follower: self._peers[node] for follower, node in led.followers.items()}
        by = {follower: peer.heard for follower, peer in peers.items() if peer.number >= led.since}
        if by:
            replica.engine.answered(by)

    def wake_leaders(self) -> None:
        """Nobody speaks for them any more: the node has so few replicas now that each beats for itself."""
        for cluster in [*self._led]:
            self.wake(cluster)

    def stood_still(self, us: int) -> None:
        """The node itself stood still for so long: what it did not hear meanwhile is no silence of others."""
        for guard in self._guards.values():
            guard.still_us += us

    def pass_time(self, now_us: int) -> None:
        """Wake those whom nobody answers or speaks to any more, and those who have something to do."""
        for node, peer in self._peers.items():
            if peer.told and not peer.answers(now_us):
                peer.told = []
                for cluster in [c for c, led in self._led.items() if node in led.followers.values()]:
                    self.wake(cluster)
        for guard in self._guards.values():
            if guard.clusters and now_us - guard.heard_us - guard.still_us >= DEAF_US:
                for cluster in [*guard.clusters]:
                    self.wake(cluster)
        if now_us >= self._until_us:
            for cluster in [c for c, led in self._led.items() if now_us >= led.until_us]:
                self.wake(cluster)
            self._until_us = min((led.until_us for led in self._led.values()), default=NEVER_US)

    @property
    def due_us(self) -> int:
        """When `pass_time` or `beat` has something to do, if nothing comes before."""
        if not self._asleep:
            return NEVER_US
        due_us = [self._until_us]
        if self._led:
            due_us.append((self._beat_us // BEAT_US + 1) * BEAT_US)
        due_us += [peer.heard.sent_us + SILENCE_US for peer in self._peers.values() if peer.told]
        due_us += [guard.heard_us + guard.still_us + DEAF_US for guard in self._guards.values() if guard.clusters]
        return min(due_us)

    # --- leaders here -----------------------------------------------------------------------------

    def beat(self, now_us: int) -> None:
        """Where the moment has come that all quiet leaders beat at: lay those to sleep that may, and speak for all that
        sleep. Before the turn's ticks, so that whoever sleeps does not beat itself."""
        if now_us // BEAT_US == self._beat_us // BEAT_US:
            return
        self._beat_us = now_us
        self._number += 1
        for cluster in [c for c, replica in self._asleep.items() if self._replicas.get(c) is not replica]:
            self.wake(cluster)  # It is here no longer, or another one in its place.
        wanted = self._lay_down(now_us)
        told: dict[str, list[Sleeper]] = {}
        for cluster, led in self._led.items():
            said = led.heartbeat
            for follower, node in led.followers.items():
                told.setdefault(node, []).append(Sleeper(cluster, said.leader, follower, said.term, said.last_index))
        for node, peer in self._peers.items():
            sleepers = told.get(node, [])
            is_asked = node in wanted and (peer.answers(now_us) or now_us - peer.asked_us >= ASK_AGAIN_US)
            if sleepers or peer.told or is_asked:  # One last word that speaks for nobody wakes the followers.
                peer.open[self._number] = peer.asked_us = now_us
                peer.told = sleepers
                self._words.append((node, peer.address, SleepBeat(self._boot, self._number, sleepers)))
            for number in [n for n, sent_us in peer.open.items() if now_us - sent_us > 2 * SILENCE_US]:
                del peer.open[number]

    def _lay_down(self, now_us: int) -> set[str]:
        """Lay to sleep whoever may; the nodes that are to answer so that some leader may."""
        wanted: set[str] = set()
        for cluster, replica in self._replicas.items():
            if cluster in self._stirred or self.holds(replica) or now_us < self._not_before_us.get(cluster, 0):
                continue
            engine = replica.engine
            if engine.role is not Role.LEADER or engine.heartbeat_us != BEAT_US or not replica.is_still:
                continue
            heartbeat = engine.heartbeat(now_us)
            if heartbeat is None:
                continue
            others = [member for member in replica.configuration.members if member.replica != replica.replica]
            for other in others:
                self._peers.setdefault(other.node, _Peer()).address = other.address
                wanted.add(other.node)
            if all(self._peers[other.node].answers(now_us) for other in others):
                followers = {other.replica: other.node for other in others}
                until_us = replica.states.mark_due_us or NEVER_US
                self._asleep[cluster] = replica
                self._led[cluster] = _Led(heartbeat, followers, self._number, until_us)
                self._until_us = min(self._until_us, until_us)
                self._not_before_us.pop(cluster, None)
        return wanted

    def take_answer(self, node: str, answer: SleepAnswer, now_us: int) -> None:
        """A node answered for the followers there: for all but those that are awake."""
        peer = self._peers.get(node)
        sent_us = peer.open.get(answer.number) if peer is not None and answer.boot == self._boot else None
        if peer is None or sent_us is None:
            return  # Answered already, or long ago.
        for cluster in answer.awake:
            led = self._led.get(cluster)
            if led is not None and led.since <= answer.number:
                self.wake(cluster)  # Before this answer counts, which was not given for it.
                self._not_before_us[cluster] = now_us + PAUSE_US
        peer.number, peer.heard = answer.number, Heard(sent_us, now_us)
        for number in [n for n in peer.open if n <= answer.number]:
            del peer.open[number]

    # --- followers here ---------------------------------------------------------------------------

    def take_beat(self, node: str, beat: SleepBeat, now_us: int) -> None:
        """A node speaks for leaders there: answer for their followers here, and let them sleep. A copy, or what later
        words have overtaken, is no sign that it lives."""
        guard = self._guards.setdefault(node, _Guard())
        if beat.number <= guard.numbers.get(beat.boot, 0):
            return
        guard.numbers[beat.boot] = beat.number
        awake: list[int] = []
        if beat.sleepers != guard.said:
            awake = self._look_at_each(node, guard, beat.sleepers, now_us)
        guard.heard_us, guard.still_us = now_us, 0
        self._words.append((node, guard.address, SleepAnswer(beat.boot, beat.number, awake)))

    def _look_at_each(self, node: str, guard: _Guard, said: list[Sleeper], now_us: int) -> list[int]:
        """Clusters for whose followers nothing can be answered. Who sleeps and is named no more wakes."""
        awake: list[int] = []
        asleep: dict[int, Replica] = {}
        for cluster, leader, follower, term, last_index in said:
            replica = self._replicas.get(cluster)
            if replica is None or replica.replica != follower or replica.stopped or replica.leader_node != node:
                awake.append(cluster)
                continue
            guard.address = member.address if (member := replica.configuration.member(leader)) else ""
            if not replica.engine.would_answer(Heartbeat(leader, term, last_index)):
                awake.append(cluster)
            elif guard.clusters.get(cluster) is replica or (cluster not in self._stirred and replica.is_still):
                asleep[cluster] = replica
            else:
                replica.engine.heard(now_us)
        for cluster in [c for c, replica in guard.clusters.items() if asleep.get(c) is not replica]:
            self.wake(cluster)
        guard.clusters = asleep
        for cluster, replica in asleep.items():
            self._asleep[cluster], self._followed[cluster] = replica, node
        guard.said = said if len(asleep) == len(said) else None
        return awake

    # --- out --------------------------------------------------------------------------------------

    def take_words(self) -> list[tuple[str, str, PeerWord]]:
        """What is to be said to other nodes, and the address that the log has of each."""
        words, self._words = self._words, []
        return words
