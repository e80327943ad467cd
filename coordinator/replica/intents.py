"""What a node is asked to do with the replicas that it hosts, and what became of it.

Whoever asks (a Celery task, a control command) posts an intent and goes on; the node's loop takes it at the start of a
turn (`lifecycle.py`). Each intent carries the asker's `request`, a word of its own: posted again it is done once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from coordinator.consensus.members import Member

WAITING_MAX: Final = 1_000
"""Intents that were posted and not taken up; more are refused."""
OUTCOMES_MAX: Final = 256
"""Outcomes that are kept for whoever asks; older ones are forgotten."""

PENDING: Final = "pending"
DONE: Final = "done"
REFUSED: Final = "refused"


class HostReplica(NamedTuple):
    """Host a replica of a cluster, with an empty journal and an identity that the node draws. It is nobody until the
    cluster's log names it."""

    request: str
    cluster: int
    cluster_name: str


class FormCluster(NamedTuple):
    """Begin the log of a new cluster on the empty replica that this node hosts for it.

    The document is the same on all of the cluster's nodes: `members` are the identities that the nodes drew. Each node
    makes the first entries itself, so that no secret travels; `fingerprint` says how all of them make such entries
    (`births.fingerprint`).
    """

    request: str
    cluster: int
    cluster_name: str
    epoch: int
    members: tuple[Member, ...]
    fingerprint: str


class RestoreReplica(NamedTuple):
    """Begin the log of a restored cluster on the empty replica that this node hosts for it: the first of `members`.

    `path`: of the backup, as this node sees it; `digest`: of the whole file, in hex. `epoch` is above every restore
    epoch that a cluster of this name ever had. The other members get the log from here.
    """

    request: str
    cluster: int
    cluster_name: str
    epoch: int
    members: tuple[Member, ...]
    path: str
    digest: str


class StopReplica(NamedTuple):
    """Take part no longer, also after a restart, until it is started again. A leader hands over first."""

    request: str
    cluster: int


class StartReplica(NamedTuple):
    request: str
    cluster: int


class RemoveReplica(NamedTuple):
    """Delete a replica with all that the journal has of it, for ever: its identity does not come back.

    `committed_index`: where the asker, who asked the leader, saw a committed configuration without it; 0: nowhere.
    `forced` names this node: an operator's own word, where no log can be asked any more.
    """

    request: str
    cluster: int
    replica: int
    committed_index: int = 0
    forced: str = ""


class BackUpReplica(NamedTuple):
    """Write the state to a file in the node's directory for backups, named after the cluster, index and request."""

    request: str
    cluster: int


class CompactReplica(NamedTuple):
    """Take a snapshot at the next mark and cut the log behind it."""

    request: str
    cluster: int


class TransferLeadership(NamedTuple):
    """Where this node leads the cluster, hand over to `node`'s replica; "": to whoever is furthest."""

    request: str
    cluster: int
    node: str


class Drain(NamedTuple):
    """While `on`, hand over every leadership that this node has or comes to have. Forgotten at a restart."""

    request: str
    on: bool


Intent = (
    HostReplica
    | FormCluster
    | RestoreReplica
    | StopReplica
    | StartReplica
    | RemoveReplica
    | BackUpReplica
    | CompactReplica
    | TransferLeadership
    | Drain
)


class Outcome(NamedTuple):
    """`state`: PENDING, DONE or REFUSED; `message` says what was done, or why not. `replica`: whose it was, or 0.

    `tries`: how often it was asked for under this request, which may be again once it was refused. Where a replica was
    hosted: `epoch` is the highest restore epoch that a cluster of that name ever had on this node
    (-1: there was none), and `fingerprint` says how this node would begin its log.
    """

    state: str
    message: str
    replica: int = 0
    epoch: int = -1
    fingerprint: str = ""
    tries: int = 1


class Intents:
    """The way from any thread to the loop. `wake` is called after each post."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Intent] = []
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._wake = wake

    def post(self, intent: Intent) -> Outcome:
        """Hand over an intent, from any thread; what is known of it. Posted again, it is done once."""
        with self._lock:
            known = self._outcomes.get(intent.request)
            if known is not None and known.state != REFUSED:
                return known
            if len(self._waiting) >= WAITING_MAX:
                return Outcome(REFUSED, f"{WAITING_MAX} intents wait already; ask again later")
            self._waiting.append(intent)
            outcome = Outcome(PENDING, "posted", tries=1 if known is None else known.tries + 1)
            self._note(intent.request, outcome)
        self._wake()
        return outcome

    def take(self) -> list[Intent]:
        """Everything that was posted since; for the loop."""
        if not self._waiting:
            return []
        with self._lock:
            taken, self._waiting = self._waiting, []
            return taken

    def finish(self, request: str, outcome: Outcome) -> None:
        """From any thread: what became of it, or how far it is. What was refused may be asked for again under the same
        request."""
        with self._lock:
            known = self._outcomes.get(request)
            self._note(request, outcome if known is None else outcome._replace(tries=known.tries))

    def outcomes(self) -> dict[str, Outcome]:
        with self._lock:
            return dict(self._outcomes)

    def _note(self, request: str, outcome: Outcome) -> None:
        self._outcomes[request] = outcome
        self._outcomes.move_to_end(request)
        while len(self._outcomes) > OUTCOMES_MAX:
            self._outcomes.popitem(last=False)
