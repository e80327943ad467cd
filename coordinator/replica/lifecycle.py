"""The lives of a node's replicas while it runs: one is hosted, formed, restored, stopped, started, removed, backed up,
compacted.

The loop calls `run` between two turns, so nothing here races with a turn. What costs a disk write is rare; what costs
more is another thread's. docs/design.md, rules 4 and 10, are kept here:

- A replica that is hosted anew has an empty journal and an identity that the node draws then and there. Nobody hands
  one in, so none comes back with another disk.
- A new cluster's log is begun only on a replica that this node drew for it and that is still empty, and in a restore
  epoch above all that this node knows of the cluster's name.
- A replica is removed only where the log says that it is no member, or where an operator forces it by the node's name.
  What is removed leaves a tombstone.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from coordinator import wire
from coordinator.consensus.engine import HardState, Role
from coordinator.consensus.membership import Configuration
from coordinator.replica.backups import Backups
from coordinator.replica.births import WebToken, fingerprint, first_log
from coordinator.replica.hosted import Hosted, as_hosted
from coordinator.replica.intents import (
    DONE,
    PENDING,
    REFUSED,
    BackUpReplica,
    CompactReplica,
    Drain,
    FormCluster,
    HostReplica,
    Intent,
    Intents,
    Outcome,
    RemoveReplica,
    RestoreReplica,
    StartReplica,
    StopReplica,
    TransferLeadership,
)
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.leavings import Leavings
from coordinator.replica.loading import Loading, Make, at_once
from coordinator.replica.replica import Replica
from coordinator.replica.restoring import Ready, Refused, Restoring
from coordinator.replica.states import NONE_OF_A_WITNESS, SLICE_EVERY_US
from coordinator.replica.stored import JournalDamaged, StoredLog, StoredReplica
from coordinator.replica.turn import Turn
from coordinator.statemachine.locks import EPOCH_MAX

REPLICAS_MAX: Final = 1_000
"""Hosted by one node."""
REQUEST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
HAND_OVER_US: Final = 700_000
"""A hand-over that came to nothing is tried again after this: the engine gives one up after 600 ms."""
HAND_OVER_US_MAX: Final = 20_000_000
"""The pause doubles up to this while leadership comes back: nodes that all drain must not toss it to and fro."""
STOP_US_MAX: Final = 2_000_000
"""How long a leader that is to stop tries to hand over first."""
SWEEP_US: Final = 100_000
SWEEP_ROWS: Final = 4
"""Of what removed replicas left behind, so many rows (1 MiB of a snapshot each) are deleted at once, this often: the
loop must not stop for it."""
EPOCHS_US: Final = 1_000_000
"""Restore epochs that came with logs from elsewhere are looked for this often, and files of snapshots that are gone."""
SILENCE_US_MIN: Final = 3_000_000
"""A member hears its leader every 60 ms. One that has heard nothing for so long may well be none any more."""


class _Later(NamedTuple):
    intent: Intent
    until_us: int


class _HandedOn(NamedTuple):
    """When a leadership was last handed on and to whom, and how long that is to last before it is tried again."""

    at_us: int
    target: int
    pause_us: int


class Lifecycle:
    def __init__(
        self,
        turn: Turn,
        journal: SqliteJournal,
        intents: Intents,
        *,
        make: Make,
        stopped: list[StoredReplica],
        damaged: Mapping[StoredReplica, str] = MappingProxyType({}),
        backups: Path,
        web_token: WebToken | None,
        logger: logging.Logger | None = None,
    ) -> None:
        """`make` makes a replica of what the journal holds. `stopped`: those that the journal holds and the turn does
        not. `damaged`: those that it can not give back, and why."""
        self._turn = turn
        self._journal = journal
        self._intents = intents
        self._make = make
        self._loading: dict[int, Loading] = {}
        """Stopped replicas that are being started, by cluster."""
        turn.resting.update((stored.cluster, stored) for stored in [*stopped, *damaged])
        turn.damaged.update((stored.cluster, why) for stored, why in damaged.items())
        self._web_token = web_token
        self._logger = logger or logging.getLogger(__name__)
        self._backups = Backups(turn.identity.node, backups, intents, self._logger)
        self._leavings = Leavings()
        self._leavings_due_us = 0
        self._later: list[_Later] = []
        self._handed_on: dict[int, _HandedOn] = {}
        """By cluster."""
        self._epochs = journal.epochs()
        self._restoring = Restoring(journal, web_token)
        self._begun_us = 0
        self._sweeps = True
        """Removed replicas may have left something in the journal; at the start, those of an earlier process."""
        self._sweep_due_us = 0
        self._epochs_due_us = 0
        self._said: set[int] = set()
        """Replicas that take no part any more, of which the log of the node has said so."""
        self.draining = False
        self.ran_us = 0
        """When the loop last came by."""

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, now_us: int) -> None:
        """Take up what was posted, and go on with what takes longer. Raises JournalFailed."""
        self.ran_us = now_us
        self._begun_us = self._begun_us or now_us
        if self._sweeps and now_us >= self._sweep_due_us:
            self._sweep_due_us = now_us + SWEEP_US
            self._sweeps = self._journal.sweep(SWEEP_ROWS)
        if not self._leavings.is_empty and now_us >= self._leavings_due_us:
            self._leavings_due_us = now_us + SLICE_EVERY_US
            self._leavings.free_some()
        if now_us >= self._epochs_due_us:
            self._epochs_due_us = now_us + EPOCHS_US
            self._take_leavings()
            self._keep_epochs()
            self._put_snapshots_again(now_us)
            self._say_who_stopped()
        later, self._later = self._later, []
        for intent, until_us in later:
            self._do(intent, now_us, until_us)
        for intent in self._intents.take():
            self._do(intent, now_us, now_us + STOP_US_MAX)
        if self.draining:
            self.hand_over_all(now_us)

    def _do(self, intent: Intent, now_us: int, until_us: int) -> None:
        if not REQUEST.fullmatch(intent.request):
            outcome: Outcome | None = Outcome(REFUSED, f"a request's name matches {REQUEST.pattern}")
        else:
            outcome = self._outcome(intent, now_us, until_us)
        if outcome is None:
            self._later.append(_Later(intent, until_us))
            return
        if outcome.state != PENDING:  # Else another thread goes on with it, and may have finished by now.
            self._logger.info("%s: %s: %s", type(intent).__name__, outcome.state, outcome.message)
            self._intents.finish(intent.request, outcome)

    def _outcome(self, intent: Intent, now_us: int, until_us: int) -> Outcome | None:
        """What became of it; None where it goes on."""
        match intent:
            case HostReplica():
                return self._host(intent)
            case FormCluster():
                return self._form(intent)
            case RestoreReplica():
                return self._restore(intent)
            case StopReplica():
                return self._stop(intent, now_us, until_us)
            case StartReplica():
                return self._start(intent, now_us)
            case RemoveReplica():
                return self._remove(intent, now_us)
            case BackUpReplica():
                return self._backups.begin(intent, self._turn.replicas.get(intent.cluster))
            case CompactReplica():
                return self._compact(intent)
            case TransferLeadership():
                return self._transfer(intent, now_us, until_us)
            case Drain(on=on):
                self.draining = on
                return Outcome(DONE, "leads nothing from here on" if on else "may lead again")

    # --- coming to be -----------------------------------------------------------------------------

    def _host(self, intent: HostReplica) -> Outcome:
        known = self._journal.replica_of_request(intent.request)
        if known is not None and known in self._journal.tombstones():
            return Outcome(REFUSED, f"this was done before, and its replica {known:x} was removed since", known)
        epoch = self.epochs().get(intent.cluster_name, -1)
        own = fingerprint(self._web_token) if self._web_token is not None else ""
        hosted = self._stored(intent.cluster)
        if hosted is not None:
            return Outcome(DONE, f"hosts replica {hosted.replica:x} of it already", hosted.replica, epoch, own)
        if not wire.NODE_NAME.fullmatch(intent.cluster_name) or not 0 < intent.cluster < 1 << 63:
            return Outcome(REFUSED, "expected a cluster's positive 63-bit identity and a name of a-z, 0-9 and -")
        others = [s for s in self._journal.replicas() if s.cluster_name == intent.cluster_name]
        if others:
            return Outcome(
                REFUSED, f"this node hosts a replica of another {others[0].cluster_name}: {others[0].cluster:x}"
            )
        if len(self._turn.replicas) + len(self._turn.resting) >= REPLICAS_MAX:
            return Outcome(REFUSED, f"this node hosts its {REPLICAS_MAX} replicas")
        stored = StoredReplica(secrets.randbits(63) or 1, intent.cluster, intent.cluster_name)
        self._journal.admit(stored, None, StoredLog(HardState(0, 0, 0), [], []), intent.request)
        self._turn.host(at_once(stored, self._journal, self._make))
        return Outcome(DONE, f"hosts the empty replica {stored.replica:x}", stored.replica, epoch, own)

    def _note_epoch(self, cluster_name: str, epoch: int) -> None:
        self._epochs[cluster_name] = max(epoch, self._epochs.get(cluster_name, 0))

    def _keep_epochs(self) -> None:
        """Write down the epochs that came with a log from elsewhere: it may be damaged, or removed while it rests, and
        the journal must know them for ever."""
        for replica in self._turn.replicas.values():
            epoch = replica.machine.epoch
            if replica.machine.cluster_id and epoch > self._epochs.get(replica.cluster_name, -1):
                self._journal.keep_epoch(replica.cluster_name, epoch)
                self._note_epoch(replica.cluster_name, epoch)

    def _put_snapshots_again(self, now_us: int) -> None:
        """What somebody has deleted is still in memory, until this process ends."""
        gone = self._journal.without_snapshot()
        for replica in self._turn.replicas.values():
            if replica.replica in gone and not replica.stopped and replica.states.put_again(self._journal, now_us):
                self._turn.stir(replica.cluster)
                self._logger.error("the file of its snapshot of %s is gone: it writes another", replica.cluster_name)

    def _take_leavings(self) -> None:
        for replica in self._turn.replicas.values():
            for left in replica.states.take_left():
                self._leavings.add(left)

    def _leave(self, replica: Replica) -> None:
        """It takes no part from here on, and what it has is freed bit by bit."""
        replica.states.end()
        snapshot, committed = replica.engine.captured()
        for left in [*replica.states.take_left(), replica.machine.state, committed.entries]:
            self._leavings.add(left)
        if snapshot is not None:
            self._leavings.add(snapshot.data)

    def _say_who_stopped(self) -> None:
        for replica in self._turn.replicas.values():
            if replica.stopped and replica.replica not in self._said:
                self._said.add(replica.replica)
                self._logger.error("its replica of %s takes no part: %s", replica.cluster_name, replica.stopped)

    def epochs(self) -> dict[str, int]:
        """The highest restore epoch of each cluster name that this node ever knew. From any thread."""
        found = dict(self._epochs)
        for replica in [*self._turn.replicas.values()]:
            if replica.machine.cluster_id:
                found[replica.cluster_name] = max(replica.machine.epoch, found.get(replica.cluster_name, 0))
        return found

    def _form(self, intent: FormCluster) -> Outcome:
        stored = self._stored(intent.cluster)
        replica = self._turn.replicas.get(intent.cluster)
        if stored is None or replica is None:
            return Outcome(REFUSED, "this node hosts no running replica of it: a replica is hosted first")
        named = Configuration(intent.members).node_of(stored.replica) == self._turn.identity.node
        if not named or intent.cluster_name != stored.cluster_name:
            return Outcome(REFUSED, f"the document is not for replica {stored.replica:x} on this node", stored.replica)
        if self._web_token is None or intent.fingerprint != fingerprint(self._web_token):
            message = "this node would begin another log: has it other keys than the rest, or another version?"
            return Outcome(REFUSED, message, stored.replica)
        if why := _epoch_problem(intent.epoch):
            return Outcome(REFUSED, why, stored.replica)
        log = first_log(intent.cluster, intent.cluster_name, intent.epoch, list(intent.members), self._web_token)
        engine = replica.engine
        if engine.last_index or replica.machine.cluster_id:
            return self._compare(replica, log)
        overtaken = self._is_overtaken(intent.cluster_name, intent.epoch)
        if overtaken:
            return Outcome(REFUSED, overtaken, stored.replica)
        self._begin(stored, intent.epoch, log)
        return Outcome(DONE, f"replica {stored.replica:x} begins the log of {intent.cluster_name}", stored.replica)

    def _begin(self, stored: StoredReplica, epoch: int, log: StoredLog, ready: Ready | None = None) -> None:
        """What the empty replica promised before it had a log stays promised. `ready`: what a restored log is of."""
        empty = self._turn.replicas[stored.cluster]
        engine = empty.engine
        state = HardState(max(log.hard_state.term, engine.term), engine.vote, log.hard_state.commit)
        log = log._replace(hard_state=state)
        self._journal.form(stored, epoch, log, None if ready is None else ready.staging)
        self._note_epoch(stored.cluster_name, epoch)
        empty.states.end()
        begun = None if ready is None else ready.begun.machine.state
        self._turn.host(self._make(stored, log, begun))

    def _is_overtaken(self, cluster_name: str, epoch: int) -> str:
        """Why no log may begin in this epoch here: its tokens might not be above those that were granted; "" if it
        may."""
        known = self.epochs().get(cluster_name, -1)
        return "" if known < epoch else f"expected an epoch above {known}, which {cluster_name} had here, got {epoch}"

    def _restore(self, intent: RestoreReplica) -> Outcome | None:
        stored, replica = self._stored(intent.cluster), self._turn.replicas.get(intent.cluster)
        outcome: Outcome | None = Outcome(
            REFUSED, "this node hosts no running replica of it: a replica is hosted first"
        )
        if stored is not None and replica is not None:
            outcome = self._refuse_restore(intent, stored, replica)
        if outcome is not None or stored is None:
            self._restoring.give_up(intent)
            return outcome
        ready = self._restoring.go_on(intent, stored.replica)
        if ready is None:
            return None
        if isinstance(ready, Refused):
            return Outcome(REFUSED, ready.why, stored.replica)
        self._begin(stored, intent.epoch, ready.begun.log, ready)
        index = ready.begun.log.offset
        message = f"replica {stored.replica:x} begins {intent.cluster_name} anew behind index {index}"
        return Outcome(DONE, f"{message}, in restore epoch {intent.epoch}", stored.replica)

    def _refuse_restore(self, intent: RestoreReplica, stored: StoredReplica, replica: Replica) -> Outcome | None:
        """What became of it, where there is nothing to do. Only the first of the members begins: of two that began,
        each by itself, nobody could say that they began with the same."""
        first = intent.members[0] if intent.members else None
        if first is None or (first.replica, first.node) != (stored.replica, self._turn.identity.node):
            return Outcome(REFUSED, f"the document does not begin with replica {stored.replica:x} on this node")
        if intent.cluster_name != stored.cluster_name:
            return Outcome(REFUSED, f"expected {stored.cluster_name}, got {intent.cluster_name}", stored.replica)
        if replica.engine.last_index or replica.machine.cluster_id:
            if self.epochs().get(intent.cluster_name, -1) >= intent.epoch and replica.engine.first_index > 1:
                return Outcome(DONE, f"replica {replica.replica:x} has begun already", replica.replica)
            return Outcome(REFUSED, "its log began with another document", replica.replica)
        why = _epoch_problem(intent.epoch) or self._is_overtaken(intent.cluster_name, intent.epoch)
        return Outcome(REFUSED, why, stored.replica) if why else None

    @staticmethod
    def _compare(replica: Replica, log: StoredLog) -> Outcome:
        """It has a log already: this document's, or another's."""
        captured, committed = replica.engine.captured()
        same = captured is not None or committed.entries[: len(log.entries)] == log.entries
        if same and replica.machine.cluster_id == replica.cluster:
            return Outcome(DONE, f"replica {replica.replica:x} has begun already", replica.replica)
        if not replica.machine.cluster_id:
            return Outcome(REFUSED, "it is being sent a log; ask again", replica.replica)
        return Outcome(REFUSED, "its log began with another document", replica.replica)

    # --- rest and end -----------------------------------------------------------------------------

    def _stop(self, intent: StopReplica, now_us: int, until_us: int) -> Outcome | None:
        replica = self._turn.replicas.get(intent.cluster)
        if replica is None:
            if intent.cluster in self._turn.resting:
                self._give_up_start(intent.cluster, "it is to stay stopped")
                return Outcome(DONE, "is stopped already", self._turn.resting[intent.cluster].replica)
            return Outcome(REFUSED, "this node hosts no replica of it")
        if now_us < until_us and self._hand_over(replica, now_us):
            return None
        self._turn.stir(intent.cluster)  # Nobody answers for it from here on.
        self._keep_epochs()  # Nobody reads them out of a log that rests.
        self._leave(replica)
        self._journal.mark_resting(replica.replica, resting=True)
        del self._turn.replicas[intent.cluster]
        self._turn.resting[intent.cluster] = StoredReplica(replica.replica, replica.cluster, replica.cluster_name)
        return Outcome(DONE, "stopped; it counts as one that is down until it is started", replica.replica)

    def _start(self, intent: StartReplica, now_us: int) -> Outcome | None:
        stored = self._turn.resting.get(intent.cluster)
        if stored is None:
            running = self._turn.replicas.get(intent.cluster)
            if running is None:
                return Outcome(REFUSED, "this node hosts no replica of it")
            return Outcome(DONE, "runs already", running.replica)
        loading = self._loading.get(intent.cluster)
        if loading is None:
            loading = self._loading[intent.cluster] = Loading(stored, self._journal, self._make)
            loading.begin()
        try:
            replica = loading.pass_time(now_us)
        except JournalDamaged as error:
            self._drop_loading(intent.cluster)
            return Outcome(REFUSED, f"{error}", stored.replica)
        if replica is None:
            return None
        self._turn.host(replica)
        del self._loading[intent.cluster]
        self._turn.damaged.pop(stored.cluster, None)
        self._journal.mark_resting(stored.replica, resting=False)
        del self._turn.resting[stored.cluster]
        return Outcome(DONE, "started", stored.replica)

    def _give_up_start(self, cluster: int, why: str) -> None:
        """Whoever had it started, and waits for that, is told."""
        if not self._drop_loading(cluster):
            return
        for waiting in [*self._later]:
            if isinstance(waiting.intent, StartReplica) and waiting.intent.cluster == cluster:
                self._later.remove(waiting)
                self._intents.finish(waiting.intent.request, Outcome(REFUSED, why))

    def _drop_loading(self, cluster: int) -> bool:
        """False where nothing of it is being loaded."""
        loading = self._loading.pop(cluster, None)
        if loading is not None and loading.state is not None:
            self._leavings.add(loading.state)
        return loading is not None

    def due_us(self, now_us: int) -> int | None:
        """When it is to be run at the latest, for what is under way; None where that can wait."""
        due_us = [loading.due_us(now_us) for loading in self._loading.values()]
        if not self._leavings.is_empty:
            due_us.append(self._leavings_due_us)
        return min(due_us, default=None)

    def _remove(self, intent: RemoveReplica, now_us: int) -> Outcome | None:
        if intent.replica in self._journal.tombstones():
            return Outcome(DONE, f"replica {intent.replica:x} was removed before", intent.replica)
        stored = self._stored(intent.cluster)
        if stored is None or stored.replica != intent.replica:
            return Outcome(REFUSED, f"this node hosts no replica {intent.replica:x} of it", intent.replica)
        replica = self._turn.replicas.get(intent.cluster)
        if intent.forced:
            if intent.forced != self._turn.identity.node:
                return Outcome(REFUSED, f"{intent.forced} was meant, and this is {self._turn.identity.node}")
            why = "an operator forced it"
        elif replica is None:
            return Outcome(REFUSED, "it is stopped, so nobody can tell what its log would say: start it, or force it")
        else:
            refused = self._is_member(replica, intent.committed_index, now_us)
            if refused:
                return Outcome(REFUSED, refused, replica.replica)
            why = f"no member as of index {max(intent.committed_index, replica.engine.commit_index)}"
        epoch = replica.machine.epoch if replica is not None and replica.machine.cluster_id else None
        if replica is not None:
            self._leave(replica)
        self._journal.retire(stored, epoch, why)
        self._sweeps = True
        if epoch is not None:
            self._note_epoch(stored.cluster_name, epoch)
        self._turn.stir(intent.cluster)
        self._turn.replicas.pop(intent.cluster, None)
        self._turn.resting.pop(intent.cluster, None)
        self._give_up_start(intent.cluster, "it was removed")
        self._turn.damaged.pop(intent.cluster, None)
        return Outcome(DONE, f"removed replica {stored.replica:x}: {why}", stored.replica)

    def _is_member(self, replica: Replica, committed_index: int, now_us: int) -> str:
        """Why it must be taken for a member still; "" where the log says that it is none.

        A member that is removed does not hear of it itself: nobody sends it the entry. So where its own log does not
        say it, two things must: whoever asks has seen a later committed configuration without it, and no leader has
        spoken to it of late, as one does to every member.
        """
        self._turn.stir(replica.cluster)
        engine = replica.engine
        heard_us = self._begun_us if engine.heard_at_us is None else engine.heard_at_us
        if now_us - heard_us < SILENCE_US_MIN:
            return "a leader may be speaking to it as to a member; ask again"
        if not engine.last_index or engine.configuration_at(engine.commit_index).member(replica.replica) is None:
            return ""
        if committed_index <= engine.commit_index:
            return f"its log names it as a member at index {engine.commit_index}; remove it from the cluster first"
        return "it leads" if engine.role is Role.LEADER else ""

    # --- leadership -------------------------------------------------------------------------------

    def hand_over_all(self, now_us: int) -> bool:
        """Hand over every leadership that somebody else could take. True while there is one."""
        leads = [self._hand_over(replica, now_us) for replica in self._turn.replicas.values()]  # Ask all of them.
        return any(leads)

    def _hand_over(self, replica: Replica, now_us: int, target: int | None = None) -> bool:
        """Ask the engine to hand over, now and then. True while this node leads and somebody could.

        Whoever did not keep it, since it hands over as well or could not be elected, is asked last.
        """
        engine = replica.engine
        if engine.role is not Role.LEADER:
            return False
        self._turn.stir(replica.cluster)  # One that sleeps does not know who answers.
        last = self._handed_on.get(replica.cluster)
        if last is not None and now_us - last.at_us >= HAND_OVER_US_MAX:
            last = None
        but = 0 if last is None else last.target
        successor = target or engine.best_successor(now_us, but=but) or engine.best_successor(now_us)
        if successor is None:
            return False
        if last is not None and now_us - last.at_us < last.pause_us:
            return True
        pause_us = HAND_OVER_US if last is None else min(2 * last.pause_us, HAND_OVER_US_MAX)
        self._handed_on[replica.cluster] = _HandedOn(now_us, successor, pause_us)
        return engine.transfer(successor, now_us)

    def _transfer(self, intent: TransferLeadership, now_us: int, until_us: int) -> Outcome | None:
        replica = self._turn.replicas.get(intent.cluster)
        if replica is None:
            return Outcome(REFUSED, "this node hosts no running replica of it")
        if replica.engine.role is not Role.LEADER:
            return Outcome(DONE, f"{replica.leader_node or 'nobody known here'} leads", replica.replica)
        voters = {member.node: member.replica for member in replica.configuration.voters}
        if intent.node == self._turn.identity.node:
            return Outcome(DONE, "it leads already", replica.replica)
        if intent.node and intent.node not in voters:
            return Outcome(REFUSED, f"{intent.node} has no vote in it")
        if intent.node and replica.configuration.is_witness(voters[intent.node]):
            return Outcome(REFUSED, f"{intent.node} is a witness: it has no state, so it can not lead")
        if now_us >= until_us:
            return Outcome(REFUSED, "it came to nothing; is the other up to date?")
        if self._hand_over(replica, now_us, voters.get(intent.node)):
            return None
        return Outcome(REFUSED, "nobody else could lead now")

    # --- copies -----------------------------------------------------------------------------------

    def _compact(self, intent: CompactReplica) -> Outcome:
        replica = self._turn.replicas.get(intent.cluster)
        if replica is None or not replica.machine.cluster_id:
            return Outcome(REFUSED, "this node hosts no running replica of it that has any state")
        if replica.stopped:
            return Outcome(REFUSED, f"its replica takes no part, and takes no snapshot: {replica.stopped}")
        if replica.engine.is_witness:
            return Outcome(REFUSED, NONE_OF_A_WITNESS)
        index = replica.engine.applied_index
        replica.states.snapshot_wanted = index
        self._turn.stir(replica.cluster)
        return Outcome(DONE, f"a snapshot at index {index} or later is taken", replica.replica)

    # --- reports ----------------------------------------------------------------------------------

    def _stored(self, cluster: int) -> StoredReplica | None:
        replica = self._turn.replicas.get(cluster)
        if replica is not None:
            return StoredReplica(replica.replica, replica.cluster, replica.cluster_name)
        return self._turn.resting.get(cluster)

    def hosted(self) -> list[Hosted]:
        """Every replica of this node. May be called from any thread: what it reads changes whole, number by number."""
        found = [as_hosted(replica) for replica in [*self._turn.replicas.values()]]
        return found + [
            Hosted(s.cluster, s.cluster_name, s.replica, "damaged" if s.cluster in self._turn.damaged else "stopped")
            for s in [*self._turn.resting.values()]
        ]

    def outcomes(self) -> dict[str, Outcome]:
        return self._intents.outcomes()


def _epoch_problem(epoch: int) -> str:
    """Why no log can begin in it; "" where one can."""
    return "" if 0 <= epoch <= EPOCH_MAX else f"expected an epoch from 0 to {EPOCH_MAX}, got {epoch}"
