"""From the real membership to the wanted one: the next safe step, or what is waited for. Pure.

The order that each move keeps: a node hosts an empty replica; the log takes it in as a learner; it catches up; it
votes, and whoever it stands in for leaves in the same change; only then is a replica deleted from its node. At every
step a majority of the voters that there will be answers now. What the log says is the truth; what a node says of itself
only decides whether to wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from coordinator.consensus.members import Member
from coordinator.consensus.quorum import majority, witnesses_max
from coordinator.membership.wanted import Wanted

NO_ZONES: Final[Mapping[str, str]] = MappingProxyType({})
EMPTY = "empty"
STOPPED = "stopped"
DIFFERS = "differs"
DAMAGED = "damaged"

_SILENT = {
    STOPPED: "is stopped",
    DIFFERS: "found that its state differs from the others', or its journal is one of before, and takes no part any "
    "more: move it to another node, or remove and add it",
    DAMAGED: "can not read its replica, which takes no part: where a later version wrote it, start that one again; "
    "else remove it by force, and it is made anew",
}
_TOO_FEW_FULL = "more than half of the voters would be witnesses"
_SILENT_ANYHOW = "does not answer the leader, and its node answers"


# --- what is looked at ----------------------------------------------------------------------------


class RealMember(NamedTuple):
    """A member as the leader sees it. `lag`: entries that it lacks; `answers`: was it heard within an election
    time-out? `silent_since`: when it was last seen to answer; None while it does."""

    member: Member
    votes: bool
    lag: int
    answers: bool
    silent_since: float | None = None

    @property
    def replica(self) -> int:
        return self.member.replica

    @property
    def node(self) -> str:
        return self.member.node


class Real(NamedTuple):
    """The membership in the log. `settled`: its configuration is committed and not joint. `leader`: a replica."""

    leader: int
    members: tuple[RealMember, ...]
    settled: bool
    promote_lag_max: int

    def on(self, node: str) -> list[RealMember]:
        return [member for member in self.members if member.node == node]


class NodeView(NamedTuple):
    """What a node says of itself. `replica`: what it hosts of this cluster (0: nothing) and in which `state`;
    `silent_since`: when it last said anything, None while it does. `replicas`: how many it hosts in all. `address`: of
    the Redis of its mailbox, "" where all share one."""

    name: str
    replica: int = 0
    state: str = ""
    silent_since: float | None = None
    zone: str = ""
    replicas: int = 0
    address: str = ""

    @property
    def answers(self) -> bool:
        return self.silent_since is None


# --- what is to be done ---------------------------------------------------------------------------


class Host(NamedTuple):
    """Have a node host an empty replica."""

    node: str


class Change(NamedTuple):
    """Change the membership in the log; `why` in words."""

    voters: tuple[Member, ...]
    learners: tuple[Member, ...]
    why: str


class Transfer(NamedTuple):
    """Hand leadership to a node, since the leader's own replica is to go."""

    node: str
    why: str


class Delete(NamedTuple):
    """Have a node delete a replica that the log does not name as a member."""

    node: str
    replica: int


class Replace(NamedTuple):
    """Want another node in place of one that is gone for good."""

    gone: str
    by: str
    why: str


class Waiting(NamedTuple):
    reason: str


class Settled(NamedTuple):
    """The membership is as it is wanted."""


Step = Host | Change | Transfer | Delete | Replace | Waiting | Settled


# --- the decision ---------------------------------------------------------------------------------


def plan(
    wanted: Wanted, real: Real | None, nodes: Mapping[str, NodeView], now: float, zones: Mapping[str, str] = NO_ZONES
) -> Step:
    """The next step. `nodes`: every node that was heard of, by name, and those of members since they were first looked
    for: of one that is not among them nobody can say how long it has been silent. Times are seconds of one clock.
    `zones`: of nodes, of those too that were not heard of."""
    if real is None:
        return Waiting("no leader is confirmed, and without one nothing is changed")
    if not real.settled:
        return Waiting("a change of the membership is being committed")
    return _Plan(wanted, real, nodes, now, zones).next()


def readdress(real: Real | None, nodes: Mapping[str, NodeView]) -> Step | None:
    """Where nodes' mailboxes are elsewhere than the log says: the log is to say it, whatever is wanted, or nothing is.
    None where there is nothing to do."""
    if real is None or not real.settled:
        return None
    return _Plan(Wanted(()), real, nodes, 0.0, NO_ZONES).readdressed()


class _Plan:
    def __init__(
        self, wanted: Wanted, real: Real, nodes: Mapping[str, NodeView], now: float, zones: Mapping[str, str]
    ) -> None:
        self.wanted, self.real, self.nodes, self.now, self.zones = wanted, real, nodes, now, zones
        self.reasons: list[str] = []
        self.lost = {member.replica for member in real.members if self._is_lost(member)}
        """Members whose node says that it has no such replica: its disk was lost, or it was removed by force."""
        self.written_off = {
            member.replica
            for member in real.members
            if member.replica in self.lost and self._is_over(member.silent_since)
        }
        witness = {place.node: place.witness for place in wanted.voters}
        self.surplus = [
            member
            for member in real.members
            if member.replica in self.written_off
            or (member.node in wanted.leaving and member.node not in witness)
            or witness.get(member.node, member.member.witness) is not member.member.witness
        ]
        """Members that are to go. One that is a witness and is not to be, or the other way round, becomes no other: it
        goes, and its node draws anew."""

    def next(self) -> Step:
        for find in (self.readdressed, self._come, self._promote, self._go, self._reorder, self._delete, self._replace):
            step = find()
            if step is not None:
                return step
        self._note_strangers()
        return Waiting("; ".join(self.reasons)) if self.reasons else Settled()

    def _is_lost(self, member: RealMember) -> bool:
        node = self.nodes.get(member.node)
        return not member.answers and node is not None and node.answers and node.replica != member.replica

    def _is_over(self, since: float | None) -> bool:
        """Has it been silent for as long as makes it gone for good?"""
        after_s = self.wanted.replace_after_s
        return after_s > 0 and since is not None and self.now - since >= after_s

    # --- somebody is to come ----------------------------------------------------------------------

    def _come(self) -> Step | None:
        for name in self.wanted.nodes:
            if all(member.replica in self.written_off for member in self.real.on(name)):
                step = self._bring(name)
                if step is not None:
                    return step
        return None

    def _bring(self, name: str) -> Step | None:
        """A wanted node without a member."""
        node = self.nodes.get(name)
        if node is None or not node.answers:
            self.reasons.append(f"{name} is to get a replica, and does not answer")
        elif not node.replica:
            return Host(name)
        elif node.state == EMPTY:
            place = next(place for place in self.wanted.voters if place.node == name)
            member = Member(node.replica, name, node.address, place.priority, place.witness)
            return Change(self._voters(), (*self._learners(), member), f"{name} is added as a learner")
        elif node.state in (STOPPED, DAMAGED):
            self.reasons.append(
                f"{name} has a {node.state} replica that is no member: remove that one from the node first"
            )
        else:
            return Delete(name, node.replica)  # Of an earlier membership: it is out, and does not come back.
        return None

    def _promote(self) -> Step | None:
        for learner in self.real.members:
            if learner.votes or learner.node not in self.wanted.nodes or learner in self.surplus:
                continue
            if not learner.answers:
                self.reasons.append(f"{learner.node} is a learner that does not answer")
            elif learner.lag > self.real.promote_lag_max:
                most = self.real.promote_lag_max
                self.reasons.append(
                    f"{learner.node} is catching up: it lacks {learner.lag} entries, at most {most} may"
                )
            else:
                step = self._promote_one(learner)
                if step is not None:
                    return step
        return None

    def _promote_one(self, learner: RealMember) -> Step | None:
        """It votes from here on; where somebody is to go, that one leaves in the same change, so that the number of
        voters does not grow meanwhile."""
        learners = tuple(member for member in self._learners() if member.replica != learner.replica)
        problem = ""
        for leaving in [*self._to_go(votes=True), None]:
            kept = [m for m in self._voters() if leaving is None or m.replica != leaving.replica]
            voters = (*kept, learner.member)
            if not _are_enough_full(voters):
                problem = f"with it {_TOO_FEW_FULL}"
            elif self._has_quorum(voters):
                why = f"{learner.node} has caught up and votes"
                return Change(voters, learners, f"{why} in place of {leaving.node}" if leaving else why)
        problem = problem or "with it no quorum of the voters would answer"
        self.reasons.append(f"{learner.node} has caught up, and {problem}")
        return None

    # --- somebody is to go ------------------------------------------------------------------------

    def _to_go(self, *, votes: bool) -> list[RealMember]:
        """Those that are lost first; the leader is handled apart."""
        going = [m for m in self.surplus if m.votes is votes and m.replica != self.real.leader]
        return sorted(going, key=lambda m: (m.replica not in self.written_off, m.answers))

    def _go(self) -> Step | None:
        for learner in self._to_go(votes=False):
            learners = tuple(m for m in self._learners() if m.replica != learner.replica)
            return Change(self._voters(), learners, f"the learner on {learner.node} is removed")
        voting = {
            member.node for member in self.real.members if member.votes and member.replica not in self.written_off
        }
        missing = [name for name in self.wanted.nodes if name not in voting]
        for member in [*self._to_go(votes=True), *(m for m in self.surplus if m.replica == self.real.leader)]:
            voters = tuple(m for m in self._voters() if m.replica != member.replica)
            if missing and len(voters) < len(self.wanted.voters):
                self.reasons.append(f"the replica on {member.node} stays until {' and '.join(missing)} votes")
            elif not self._has_quorum(voters):
                self.reasons.append(f"without the replica on {member.node} no quorum of the voters would answer")
            elif not _are_enough_full(voters):
                self.reasons.append(f"without the replica on {member.node} {_TOO_FEW_FULL}")
            elif member.replica == self.real.leader:
                return self._hand_over(member)
            else:
                return Change(voters, self._learners(), f"the replica on {member.node} is removed")
        return None

    def _hand_over(self, leader: RealMember) -> Step | None:
        heirs = [
            m for m in self.real.members if m.votes and m.answers and not m.member.witness and m not in self.surplus
        ]
        if not heirs:
            self.reasons.append(f"the replica on {leader.node} leads, and nobody else answers who votes and could lead")
            return None
        heir = min(heirs, key=lambda m: (-m.member.priority, m.lag, m.node))
        return Transfer(heir.node, f"the replica on {leader.node} leads and is to go")

    def _delete(self) -> Step | None:
        members = {member.replica for member in self.real.members}
        for name in self.wanted.leaving:
            node = self.nodes.get(name)
            if node is None or not node.replica or node.replica in members or name in self.wanted.nodes:
                continue
            if not node.answers:
                self.reasons.append(f"{name} has a replica to delete that is no member any more, and does not answer")
            elif node.state in (STOPPED, DAMAGED):
                self.reasons.append(f"{name} has a {node.state} replica that is no member: remove it by force")
            else:
                return Delete(name, node.replica)
        return None

    # --- somebody is other than wanted ------------------------------------------------------------

    def readdressed(self) -> Step | None:
        """Nodes whose mailbox is elsewhere than the log says. Each tells its peers itself, those that it can reach."""
        moved = {
            member.replica: node.address
            for member in self.real.members
            if (node := self.nodes.get(member.node)) is not None
            and node.answers
            and node.replica == member.replica
            and node.address != member.member.address
        }
        if not moved:
            return None
        voters, learners = (
            tuple(m._replace(address=moved.get(m.replica, m.address)) for m in members)
            for members in (self._voters(), self._learners())
        )
        nodes = ", ".join(member.node for member in self.real.members if member.replica in moved)
        if not self._has_quorum(voters):
            self.reasons.append(f"{nodes}: the mailbox is elsewhere now, and no quorum of the voters answers")
            return None
        return Change(voters, learners, f"{nodes}: the mailbox is elsewhere now")

    def _reorder(self) -> Step | None:
        """Priorities that were changed."""
        wanted = {place.node: place.priority for place in self.wanted.voters}
        voters = tuple(m._replace(priority=wanted.get(m.node, m.priority)) for m in self._voters())
        if voters != self._voters() and self._has_quorum(voters):
            return Change(voters, self._learners(), "priorities are changed")
        return None

    def _replace(self) -> Step | None:
        for member in self.real.members:
            if member.answers or member.node not in self.wanted.nodes or member in self.surplus:
                continue
            node = self.nodes.get(member.node)
            if member.replica in self.lost:
                self.reasons.append(f"{member.node} has lost its replica: it is replaced {self._when(member)}")
            elif node is not None and node.answers:
                self.reasons.append(f"the replica on {member.node} {_SILENT.get(node.state, _SILENT_ANYHOW)}")
            elif node is None or not self._is_over(self._gone_since(member)):
                self.reasons.append(f"{member.node} does not answer: it is replaced {self._when(member)}")
            else:
                spare = choose(
                    1,
                    self.wanted,
                    self.nodes.values(),
                    self.zones,
                    members=[other.node for other in self.real.members],
                    but=(member.node,),
                )
                if spare:
                    return Replace(
                        member.node, spare[0], f"{member.node} has been gone for {self._gone_s(member):.0f} s"
                    )
                self.reasons.append(f"{member.node} is gone for good, and there is no other node to take its place")
        return None

    def _gone_since(self, member: RealMember) -> float | None:
        """Since when neither the replica nor its node has said anything; of a node that answers, the replica alone."""
        node = self.nodes.get(member.node)
        if member.silent_since is None or node is None or node.silent_since is None:
            return member.silent_since
        return max(member.silent_since, node.silent_since)

    def _gone_s(self, member: RealMember) -> float:
        since = self._gone_since(member)
        return 0.0 if since is None else self.now - since

    def _when(self, member: RealMember) -> str:
        after_s = self.wanted.replace_after_s
        if not after_s:
            return "when somebody says so"
        tenth_s = max(1, after_s // 10)  # In steps: whoever writes it down is not to write it every second.
        passed_s = min(self._gone_s(member), after_s) // tenth_s * tenth_s
        return f"after {after_s} s, of which {passed_s:.0f} have passed"

    def _note_strangers(self) -> None:
        for member in self.real.members:
            if member.node not in self.wanted.nodes and member.node not in self.wanted.leaving:
                self.reasons.append(
                    f"{member.node} has a replica that nobody asked for, and nobody asked to remove: "
                    f"add-replica or remove-replica {member.node}"
                )

    # --- arithmetic -------------------------------------------------------------------------------

    def _voters(self) -> tuple[Member, ...]:
        return tuple(member.member for member in self.real.members if member.votes)

    def _learners(self) -> tuple[Member, ...]:
        return tuple(member.member for member in self.real.members if not member.votes)

    def _has_quorum(self, voters: Collection[Member]) -> bool:
        """Does a majority of these answer now?"""
        answering = {member.replica for member in self.real.members if member.answers}
        count = sum(1 for member in voters if member.replica in answering)
        return bool(voters) and count >= majority(len(voters))


def _are_enough_full(voters: Collection[Member]) -> bool:
    """The log takes no others: at most half of the voters are witnesses. Another step makes room as a rule."""
    return sum(member.witness for member in voters) <= witnesses_max(len(voters))


# --- where to put replicas ------------------------------------------------------------------------


def choose(
    count: int,
    wanted: Wanted | None,
    nodes: Iterable[NodeView],
    zones: Mapping[str, str] = NO_ZONES,
    *,
    members: Collection[str] = (),
    but: Collection[str] = (),
) -> tuple[str, ...]:
    """Up to `count` nodes that answer and have nothing of the cluster: in the zones that have fewest of its replicas,
    and there those that host fewest. `zones`: where a node is that was not heard of. `members`: nodes that the log
    names, though their replica may be lost. `but`: not these, and they count for no zone."""
    views = {view.name: view for view in nodes}
    zone_of = {**zones, **{view.name: view.zone for view in views.values()}}
    taken = {*members, *but} if wanted is None else {*wanted.nodes, *members, *but}
    placed = () if wanted is None else [name for name in wanted.nodes if name not in but]
    filled = Counter(zone_of[name] for name in placed if name in zone_of)
    free = [view for view in views.values() if view.answers and not view.replica and view.name not in taken]
    chosen: list[str] = []
    while free and len(chosen) < count:
        best = min(free, key=lambda view: (filled[view.zone], view.replicas, view.name))
        free.remove(best)
        filled[best.zone] += 1
        chosen.append(best.name)
    return tuple(chosen)
