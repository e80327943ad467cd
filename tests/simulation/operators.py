"""What operators do to a running cluster: transfer, campaign on request, step-down, changes of membership.

They ask the engine of the node that they think leads, as the host does for them, between two turns. What is refused
or comes to nothing is no fault; what must hold, holds all the same.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import ChangeRefused, Configuration
from tests.simulation.node import Node
from tests.simulation.quorums import is_full_quorum, is_quorum

if TYPE_CHECKING:
    from tests.simulation.world import World

TRIES_MAX: Final = 6
AT_ONCE: Final = 0.5
"""Which share of the changes is of many voters at once."""


def _can_ask(node: Node) -> bool:
    """Is there a replica that takes part? It is about to be asked for something, and wakes."""
    if node.replica is None or node.replica.stopped:
        return False
    node.wake()
    return True


def transfer(world: World, node: Node, salt: int) -> bool:
    """Hand the leadership of `node` to somebody, who may be dead."""
    if not _can_ask(node):
        return False
    voters = [member.replica for member in node.engine.configuration.voters if member.replica != node.disk.replica]
    done = bool(voters) and node.engine.transfer(voters[salt % len(voters)], node.clock.now_us())
    node.nudge()
    return done


def campaign(node: Node) -> bool:
    if not _can_ask(node):
        return False
    node.engine.campaign_now(node.clock.now_us())
    node.nudge()
    return True


def compact(node: Node) -> None:
    """Ask for a snapshot of what is applied now, and for the log to be cut behind it."""
    if _can_ask(node):
        assert node.replica is not None
        node.replica.states.snapshot_wanted = node.engine.applied_index
        node.nudge()


def step_down(node: Node) -> bool:
    if not _can_ask(node):
        return False
    node.engine.step_down(node.clock.now_us())
    node.nudge()
    return True


def new_replica(world: World, random: Random) -> bool:
    """Begin a new replica, under an identity that was never used, on a node whose own is in no configuration any more
    or whose disk is lost; it waits for a leader to send it the log, once it is made a member."""
    needed = world.replicas_in_use()
    idle = [node for node in world.nodes if node.disk.replica not in needed or node.is_lost]
    idle = [node for node in idle if node.disk.replica not in world.unborn]
    if not idle:
        return False
    node = random.choice(idle)
    member = Member(random.getrandbits(63) | 1, node.name, witness=random.random() < 0.2)
    world.unborn[member.replica] = member
    node.rebirth(member.replica)
    return True


def change_membership(world: World, node: Node, random: Random, tries: int = TRIES_MAX) -> bool:
    """Ask for another membership, drawn: one voter more or less, or any set of voters at once. Ask again where it is
    refused."""
    engine = node.engine
    if not _can_ask(node):
        return False
    now = engine.configuration
    here = {other.disk.replica for other in world.nodes}
    everyone = {m.replica: m for m in (*world.born_members, *world.unborn.values()) if m.replica in here}
    voters = {member.replica: member for member in now.voters}
    learners = {member.replica: member for member in now.learners}
    lost = [replica for replica in sorted(voters) if replica not in everyone]
    others = [replica for replica in sorted(everyone) if replica not in voters]
    at_once = random.random() < AT_ONCE
    if at_once:
        _redraw(voters, learners, everyone, random)
    for _ in range(0 if at_once else random.choice((1, 1, 1, 2, 3))):
        choice = random.random()
        if choice < 0.4 and len(voters) > 1:
            gone = random.choice([replica for replica in lost if replica in voters] or sorted(voters))
            member = voters.pop(gone)
            if gone in everyone and random.random() < 0.6:
                learners[gone] = member
        elif others:
            replica = random.choice(others)
            if replica in learners and random.random() < 0.8:
                voters[replica] = learners.pop(replica)
            elif replica in learners and random.random() < 0.3:
                del learners[replica]
            elif replica not in voters:
                learners[replica] = everyone[replica]
    if not _is_sound(world, Configuration(_sorted(voters))):
        return False
    change = Change(_sorted(voters), _sorted(learners))
    try:
        engine.change(change, node.clock.now_us())
    except ChangeRefused:
        world.faults["refused-change"] += 1
        if tries > 0:
            pause_us = random.randrange(50, 2_000)
            world.scheduler.after(pause_us, _try_again, world, node, random, tries - 1)
        return False
    world.watch.tell("change_begun", node, change)
    node.nudge()
    return True


def _is_sound(world: World, wanted: Configuration) -> bool:
    """An operator who knows that a disk is lost does not build on it."""
    healthy = {node.disk.replica for node in world.nodes if not node.is_lost}
    return is_quorum(wanted, healthy) and (not world.flipped or is_full_quorum(wanted, healthy - world.flipped))


def demote(world: World, leader: Node, replica: int) -> bool:
    """Ask for a voter to become a learner."""
    now = leader.engine.configuration
    gone = [member for member in now.voters if member.replica == replica]
    rest = tuple(member for member in now.voters if member.replica != replica)
    return bool(gone and rest) and _ask(world, leader, Change(rest, (*now.learners, *gone)))


def promote(world: World, leader: Node, replica: int) -> bool:
    """Ask for a learner to become a voter."""
    now = leader.engine.configuration
    risen = [member for member in now.learners if member.replica == replica]
    rest = tuple(member for member in now.learners if member.replica != replica)
    return bool(risen) and _ask(world, leader, Change((*now.voters, *risen), rest))


def _ask(world: World, leader: Node, change: Change) -> bool:
    if not _can_ask(leader) or not _is_sound(world, Configuration(change.voters)):
        return False
    try:
        leader.engine.change(change, leader.clock.now_us())
    except ChangeRefused:
        return False
    world.watch.tell("change_begun", leader, change)
    leader.nudge()
    return True


def _redraw(
    voters: dict[int, Member], learners: dict[int, Member], everyone: dict[int, Member], random: Random
) -> None:
    """Any of those who have the log, and no others, are to vote; the rest learn or leave."""
    known = {replica: member for replica, member in (voters | learners).items() if replica in everyone}
    chosen = set(random.sample(sorted(known), random.randint(1, len(known)))) if known else set()
    if not chosen:
        return
    voters.clear()
    learners.clear()
    for replica in sorted(known):
        if replica in chosen:
            voters[replica] = known[replica]
        elif random.random() < 0.8:
            learners[replica] = known[replica]


def _try_again(world: World, node: Node, random: Random, tries: int) -> None:
    if not world.injector.stopped and change_membership(world, node, random, tries):
        world.faults["membership-change"] += 1


def _sorted(members: dict[int, Member]) -> tuple[Member, ...]:
    return tuple(members[replica] for replica in sorted(members))
