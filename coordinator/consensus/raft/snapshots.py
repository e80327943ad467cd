"""Snapshots: Raft, section 7; thesis, chapter 5. Sent in parts, with a window, resumed after loss.

A part that is lost shows as a gap: the follower answers with how much it has, and the leader goes on from there. While
a snapshot is sent its parts are the heartbeats: one that was not acknowledged is sent again, though the window be full.

One that has come whole is put in place by its host, which may take many turns to write and to load it (`Raft.arrived`,
`Raft.install`). Meanwhile the follower votes, and answers its leader as if the last byte were missing.

A witness has no state, so its own snapshots are empty: where its log begins, and the configuration there. One that is
sent a snapshot keeps the state in it for as long as a full voter may lack it (`Raft.settled`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Outgoing, Role, Snapshot
from coordinator.consensus.membership import decode_configuration, encode_configuration
from coordinator.consensus.parts import Parts
from coordinator.consensus.raft import elections
from coordinator.consensus.raft.messages import InstallSnapshot, SnapshotResponse
from coordinator.consensus.raft.progress import Progress

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft


# --- the leader -----------------------------------------------------------------------------------


def send(raft: Raft, follower: int, progress: Progress, number: int, *, heartbeat: bool) -> None:
    """Send parts as far as the window goes; at a heartbeat, go on from what was acknowledged."""
    if progress.snapshot is None:
        assert raft.snapshot is not None, "the log was compacted, so there is a snapshot"
        source = raft.snapshot
        if raft.configuration.is_witness(follower) and raft.settled >= source.last_index:
            source = source._replace(data=b"")
        progress.send_snapshot(source)
    at = progress.snapshot
    assert at is not None
    if heartbeat:
        at.sent = at.acked
    size, chunk = len(at.source.data), raft.options.snapshot_chunk_bytes
    beaten = False
    while at.sent - at.acked < raft.options.snapshot_window_bytes and (at.sent < size or (size == 0 and not beaten)):
        data = at.source.data[at.sent : at.sent + chunk]
        _send_part(raft, at.source, follower, number, at.sent, data)
        at.sent += len(data)
        beaten = True


def can_bring_up(raft: Raft, follower: int) -> bool:
    """Can this leader bring up to date a follower that lacks what its log no longer holds? A witness can not give a
    state that it does not have, and who is in doubt of its own gives only what was right before."""
    if raft.configuration.is_witness(follower) or raft.snapshot is None:
        return True
    return bool(raft.snapshot.data) and (not raft.in_doubt or raft.snapshot.last_index <= raft.sure_index)


def has_work(raft: Raft, progress: Progress) -> bool:
    """Is there more to send, and room in the window?"""
    at = progress.snapshot
    assert at is not None, "a follower in this state is being sent one"
    return at.sent < len(at.source.data) and at.sent - at.acked < raft.options.snapshot_window_bytes


def _send_part(raft: Raft, snapshot: Snapshot, follower: int, number: int, offset: int, data: bytes) -> None:
    configuration = encode_configuration(snapshot.configuration)
    part = InstallSnapshot(
        raft.term, number, snapshot.last_index, snapshot.term, configuration, len(snapshot.data), offset, data
    )
    raft.early.append(Outgoing(follower, part))


def on_response(raft: Raft, sender: int, response: SnapshotResponse, now_us: int) -> None:
    if response.term > raft.term:
        elections.become_follower(raft, response.term, 0, now_us)
        return
    progress = raft.progress.get(sender)
    if response.term < raft.term or raft.role is not Role.LEADER or progress is None:
        return
    is_news = response.round > progress.acked_round
    raft.note_contact(progress, response.round, now_us)
    at = progress.snapshot
    if at is None or (at.source.last_index, len(at.source.data)) != (response.last_index, response.size):
        return
    if response.offset >= response.size:
        progress.match = max(progress.match, response.last_index)
        progress.next = progress.match + 1
        progress.probe()
        return
    # It may have lost what it had, as a restart does it; an answer that comes late says nothing of that.
    at.acked = response.offset if is_news else max(at.acked, response.offset)
    at.sent = max(at.sent, response.offset)


# --- the follower ---------------------------------------------------------------------------------


class Incoming:
    """A snapshot of which some has come."""

    __slots__ = ("data", "key", "whole")

    def __init__(self, key: tuple[int, int, int]) -> None:
        self.key = key
        """Index, term and size: parts of another snapshot do not mix with these."""
        self.data = Parts()
        self.whole: Snapshot | None = None
        """All of it is here."""


def on_install(raft: Raft, sender: int, part: InstallSnapshot, now_us: int) -> None:
    if part.term < raft.term:
        raft.late.append(Outgoing(sender, SnapshotResponse(raft.term, 0, part.last_index, -1, part.size)))
        return
    is_overtaken = (part.term, part.round) < raft.heard_round
    elections.follow(raft, part.term, part.round, sender, now_us)
    if part.last_index <= raft.log.commit:
        if not is_overtaken:
            raft.incoming = None
        _answer(raft, sender, part, part.size)
        return
    key = (part.last_index, part.last_term, part.size)
    if raft.incoming is None or raft.incoming.key != key:
        if raft.incoming is not None and is_overtaken:
            return  # A copy of an earlier one must not undo what has come of the latest.
        raft.incoming = Incoming(key)
    data = raft.incoming.data
    if part.offset == len(data):
        data.append(part.data)
    if len(data) < part.size:
        _answer(raft, sender, part, len(data))
        return
    if raft.incoming.whole is None:
        configuration = decode_configuration(part.configuration)
        raft.incoming.whole = Snapshot(part.last_index, part.last_term, configuration, data)
    if part.size == 0:
        _install(raft, raft.incoming.whole)  # There is nothing to get ready.
        _answer(raft, sender, part, part.size)
        return
    _answer(raft, sender, part, part.size - 1)


def _answer(raft: Raft, sender: int, part: InstallSnapshot, offset: int) -> None:
    raft.late.append(Outgoing(sender, SnapshotResponse(raft.term, part.round, part.last_index, offset, part.size)))


def arrived(raft: Raft) -> Snapshot | None:
    """The snapshot that has come whole and is still of use: a leader has all that it needs in its log."""
    incoming = raft.incoming
    if incoming is None or raft.role is Role.LEADER or incoming.key[0] <= raft.log.commit:
        return None
    return incoming.whole


def install(raft: Raft) -> None:
    """The host can put what arrived in place at once. Whoever leads now is told, of no round: this answers none."""
    snapshot = arrived(raft)
    assert snapshot is not None, "a snapshot is installed once it has arrived"
    _install(raft, snapshot)
    if raft.leader:
        size = len(snapshot.data)
        raft.late.append(Outgoing(raft.leader, SnapshotResponse(raft.term, 0, snapshot.last_index, size, size)))


def drop_overtaken(raft: Raft) -> None:
    """The log has come further than a snapshot that was on its way: it is of no use any more."""
    if raft.incoming is not None and raft.incoming.key[0] <= raft.log.commit:
        raft.incoming = None


def _install(raft: Raft, snapshot: Snapshot) -> None:
    """All of it is here: it takes the place of the log up to its index."""
    raft.incoming = None
    raft.keep_tail = raft.log.install(snapshot.last_index, snapshot.term)
    raft.installed = raft.snapshot = snapshot
    raft.applied = snapshot.last_index
    raft.configurations = [(snapshot.last_index, snapshot.configuration)]
    raft.note_configurations(snapshot.last_index + 1)
    raft.note_kind()
