"""Log replication and commitment: Raft, sections 5.3 and 5.4.2.

The leader sends entries and heartbeats in rounds, one a turn at the most, and does not wait for its own disk with
them (thesis, section 10.2.1). It counts itself only for what is in its own journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.consensus.engine import Outgoing, Role
from coordinator.consensus.entries import bytes_in, payload_bytes
from coordinator.consensus.members import Member
from coordinator.consensus.raft import changes, elections, snapshots, spares
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse
from coordinator.consensus.raft.options import quiet_beat_us
from coordinator.consensus.raft.progress import Progress, ProgressState

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft

ROUND_MESSAGES_MAX: Final = 2
"""To one follower. The rest goes with its answers: one that lacks much must not hold up the others' turn."""
REMINDER: Final = 0
"""The round, of which there is none, of what reminds a follower of what it has acknowledged (`_remind`)."""


# --- the leader -----------------------------------------------------------------------------------


def replicate(raft: Raft, now_us: int) -> None:
    """Send each follower what it lacks, or have it wait for that (`spares.py`); to all of them where a heartbeat is due
    or a read waits for a round."""
    to_all = raft.rounds.current == 0 or _is_beat_due(raft, now_us) or raft.reads.needs_round(raft.rounds.current)
    targets = [*raft.progress.items()]
    if not to_all:
        last_index, in_parts = raft.log.last_index, ProgressState.SNAPSHOT
        targets = [
            (voter, progress)
            for voter, progress in targets
            if (progress.next <= last_index or progress.state is in_parts) and _has_work(raft, progress)
        ]
        targets = spares.hold_back(raft, targets, now_us)
    if not targets and not to_all:
        return
    is_for_all = len(targets) == len(raft.progress)
    number = raft.rounds.begin(now_us, to_all=is_for_all)
    if is_for_all:
        raft.spares.shared(number)
    if raft.configuration.has_witness and raft.may_answer:
        raft.settled = max(raft.settled, _settled(raft))
    for voter, progress in targets:
        if progress.state is ProgressState.SNAPSHOT or raft.log.term_at(progress.next - 1) is None:
            if snapshots.can_bring_up(raft, voter):
                snapshots.send(raft, voter, progress, number, heartbeat=to_all)
            else:
                _beat(raft, voter, progress, number)
            continue
        _send(raft, voter, progress, number)
        for _ in range(ROUND_MESSAGES_MAX - 1):
            if not _may_send(raft, progress):
                break
            _send(raft, voter, progress, number)


def _is_beat_due(raft: Raft, now_us: int) -> bool:
    if now_us < _next_moment_us(raft, raft.options.heartbeat_us):
        return False
    _note_quiet(raft, now_us)
    return now_us >= beat_due_us(raft)


def beat_due_us(raft: Raft) -> int:
    """When a leader's next heartbeat is due. Those of all leaders of a node fall together, and so do the answers: with
    a hundred clusters, turns and packets of their own for each would take more than all else."""
    rounds = raft.rounds
    is_quiet = rounds.is_quiet and raft.log.last_index == rounds.quiet_index
    is_seldom = is_quiet or spares.beats_seldom(raft)
    return _next_moment_us(raft, quiet_beat_us(raft.options) if is_seldom else raft.options.heartbeat_us)


def _next_moment_us(raft: Raft, interval_us: int) -> int:
    """A multiple of the interval: the first that is half a heartbeat behind the last round that went to everyone, so
    that one that has much to send beats seldom beside it."""
    return ((raft.rounds.all_sent_us + raft.options.heartbeat_us // 2) // interval_us + 1) * interval_us


def _note_quiet(raft: Raft, now_us: int) -> None:
    """Is there nothing that anybody who answers lacks, and has that been so for a while?"""
    last_index = raft.log.last_index
    is_settled = (
        raft.log.commit == last_index
        and raft.transferring is None
        and all(
            progress.match == last_index or not changes.answers(raft, follower, now_us)
            for follower, progress in raft.progress.items()
        )
    )
    raft.rounds.note_quiet(last_index, now_us, raft.options.quiet_us, is_settled=is_settled)


def _may_send(raft: Raft, progress: Progress) -> bool:
    options = raft.options
    return progress.next <= raft.log.last_index and progress.may_send(
        options.inflight_messages_max, options.inflight_bytes_max
    )


def _has_work(raft: Raft, progress: Progress) -> bool:
    if progress.state is ProgressState.SNAPSHOT:
        return snapshots.has_work(raft, progress)
    return _may_send(raft, progress)


def _settled(raft: Raft) -> int:
    """Up to where every full voter has the committed log on disk: a witness keeps what lies behind it. By every
    configuration that is in force or may come into force: one that is not committed may be cut off again.

    It never shrinks. A later leader's term begins behind all that was committed before, and a replica becomes a full
    voter only once it has that, and what this leader told since (`changes.begin`). So that a learner which is a little
    behind can become one under load, it is waited for, too."""
    log = raft.log
    configurations = [raft.configuration_at(log.commit)]
    configurations += [configuration for index, configuration in raft.configurations if index > log.commit]
    waited_for = {voter for configuration in configurations for voter in configuration.full_voter_ids}
    waited_for |= {member.replica for member in raft.configuration.learners if _is_near(raft, member)}
    return min(log.commit, *(on_disk(raft, replica) for replica in waited_for))


def _is_near(raft: Raft, learner: Member) -> bool:
    """May this learner be made a full voter soon?"""
    progress = raft.progress.get(learner.replica)
    if progress is None or learner.witness:
        return False
    lag = raft.log.commit - progress.match
    return lag <= raft.options.promote_lag_entries_max and changes.answers(
        raft, learner.replica, raft.rounds.all_sent_us
    )


def on_disk(raft: Raft, voter: int) -> int:
    """Up to where a voter has this leader's log on disk, as far as it is known here."""
    if voter == raft.replica:
        return raft.log.unwritten - 1
    progress = raft.progress.get(voter)
    return 0 if progress is None else progress.match


def _send(raft: Raft, voter: int, progress: Progress, number: int) -> None:
    log = raft.log
    terms: list[int] = []
    entries: list[bytes] = []
    prev_index = progress.next - 1
    prev_term = log.term_at(prev_index)
    assert prev_term is not None, f"the log no longer holds {prev_index}, which {voter} needs"
    if _may_send(raft, progress):
        options = raft.options
        last_index = min(log.last_index, prev_index + options.message_entries_max)
        terms, entries = log.slice(progress.next, last_index, options.message_bytes_max)
        progress.sent(prev_index + len(entries), bytes_in(entries))
    message = AppendEntries(raft.term, prev_index, prev_term, log.commit, number, terms, entries, raft.settled)
    raft.early.append(Outgoing(voter, message))


def _beat(raft: Raft, voter: int, progress: Progress, number: int) -> None:
    """A heartbeat where this log begins, for a follower that may lack what it no longer holds."""
    log = raft.log
    progress.probe()
    progress.sent(log.offset, 0)
    message = AppendEntries(raft.term, log.offset, log.offset_term, log.commit, number, [], [], raft.settled)
    raft.early.append(Outgoing(voter, message))


def on_append_response(raft: Raft, sender: int, response: AppendResponse, now_us: int) -> None:
    if response.term > raft.term:
        elections.become_follower(raft, response.term, 0, now_us)
        return
    if response.term < raft.term or raft.role is not Role.LEADER:
        return
    progress = raft.progress.get(sender)
    if progress is None:
        return
    raft.note_contact(progress, response.round, now_us)
    if raft.options.spare_us:
        raft.spares.answered(sender, response.round, now_us, raft.options.spare_us // spares.LATE_SHARE)
    if not response.success:
        if response.match <= progress.match and response.round != REMINDER:
            _remind(raft, sender, progress)
        agree_index, _ = raft.log.conflict_hint(response.hint_index, response.hint_term)
        progress.refused(response.match, agree_index)
    elif progress.acknowledged(response.match):
        advance_commit(raft)


def _remind(raft: Raft, follower: int, progress: Progress) -> None:
    """It refused what it has acknowledged in this term: before it did that, in an answer that comes late, or since it
    has forgotten it. It can tell for certain, and an old copy of this tells nobody wrong: within a term nothing that
    was acknowledged to its leader is ever cut off again. An earlier version takes it for a heartbeat."""
    prev_term = raft.log.term_at(progress.match)
    if prev_term is not None:
        message = AppendEntries(raft.term, progress.match, prev_term, raft.log.commit, REMINDER, [], [], raft.settled)
        raft.early.append(Outgoing(follower, message))


def confirmed_round(raft: Raft) -> int:
    """The last round that a majority, the leader included, has answered."""

    answered = {
        voter: raft.rounds.current if voter == raft.replica else raft.progress[voter].acked_round
        for voter in raft.configuration.voter_ids
    }
    return raft.configuration.reached(answered)


def advance_commit(raft: Raft) -> None:
    """Commit what a majority has on disk, by counting entries of the own term alone (Raft, section 5.4.2, figure 8)."""
    log = raft.log
    if log.commit == log.last_index:
        return
    configuration = raft.configuration
    index = configuration.reached({voter: on_disk(raft, voter) for voter in configuration.voter_ids})
    if index > log.commit and log.term_at(index) == raft.term:
        start = log.commit - log.offset
        raft.uncommitted_bytes -= payload_bytes(log.entries[start : index - log.offset])
        log.commit = index
        if index == log.last_index:
            raft.spares.committed()


# --- the follower ---------------------------------------------------------------------------------


def on_append_entries(raft: Raft, sender: int, message: AppendEntries, now_us: int) -> None:
    log = raft.log
    if message.term < raft.term:
        # The answer deposes a leader of the past, and frees one whose followers went on to a higher term.
        raft.late.append(Outgoing(sender, _refusal(raft, message, round_number=0)))
        return
    elections.follow(raft, message.term, message.round, sender, now_us)
    raft.settled = max(raft.settled, message.settled)
    if message.prev_index < log.offset:
        # What the log no longer holds is committed, and so matches: say so, and take what lies behind it.
        skipped = log.offset - message.prev_index
        if skipped > len(message.entries):
            raft.late.append(
                Outgoing(
                    sender,
                    AppendResponse(raft.term, message.round, success=True, match=log.offset, hint_index=0, hint_term=0),
                )
            )
            return
        message = message._replace(
            prev_index=log.offset,
            prev_term=log.offset_term,
            terms=message.terms[skipped:],
            entries=message.entries[skipped:],
        )
    if not log.matches(message.prev_index, message.prev_term):
        if message.round == REMINDER:
            raft.forgot = message.prev_index
        hint = log.conflict_hint(message.prev_index, message.prev_term)
        raft.late.append(Outgoing(sender, _refusal(raft, message, round_number=message.round, hint=hint)))
        return
    match = message.prev_index + len(message.entries)
    raft.agreed = max(raft.agreed, (raft.term, match))
    _take_entries(raft, message)
    log.commit = max(log.commit, min(message.commit, match))
    raft.late.append(
        Outgoing(sender, AppendResponse(raft.term, message.round, success=True, match=match, hint_index=0, hint_term=0))
    )


def _refusal(
    raft: Raft, message: AppendEntries, *, round_number: int, hint: tuple[int, int] = (0, 0)
) -> AppendResponse:
    return AppendResponse(
        raft.term, round_number, success=False, match=message.prev_index, hint_index=hint[0], hint_term=hint[1]
    )


def _take_entries(raft: Raft, message: AppendEntries) -> None:
    """Add what is new. A tail is cut off only where it conflicts: an old message must not undo a newer one."""
    log = raft.log
    index = message.prev_index + 1
    for position, term in enumerate(message.terms):
        held = log.term_at(index + position)
        if held == term:
            continue
        if held is not None:
            raft.truncate(index + position)
        raft.append(index + position, message.terms[position:], message.entries[position:])
        return
