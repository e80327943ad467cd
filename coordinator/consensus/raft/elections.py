"""Elections: Raft, sections 5.2 and 5.4.1; pre-vote and stickiness, thesis, sections 9.6 and 4.2.3; the crash hint.

    follower ──election time-out, or the crash hint──▶ pre-candidate ──majority would vote──▶ candidate
    candidate ──majority voted──▶ leader          any ──a higher term, or the term's leader speaks──▶ follower
    leader ──no majority has answered for an election time-out (check-quorum)──▶ follower

A pre-vote changes nothing at the voter and promises nothing. A vote is a promise: it leaves after the journal.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from coordinator.consensus.engine import Outgoing, Role
from coordinator.consensus.entries import NOOP_ENTRY, payload_bytes
from coordinator.consensus.quorum import Tally
from coordinator.consensus.raft import changes, transfer
from coordinator.consensus.raft.messages import TimeoutNow, VoteRequest, VoteResponse
from coordinator.consensus.raft.rounds import Rounds
from coordinator.consensus.raft.spares import Spares

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft

_NOBODY = 0
_NEVER_US = 1 << 62

REASON_TIMEOUT = "election time-out"
REASON_SUSPICION = "channel fell silent"
REASON_TRANSFER = "leadership handed over"
REASON_REQUEST = "campaign on request"


def reset_timer(raft: Raft, now_us: int) -> None:
    """The next election time-out, drawn anew each time (Raft, section 5.2). Who may not serve lets the others try
    first."""
    options = raft.options
    shortest_us = options.election_timeout_us_min
    raft.election_due_us = now_us + shortest_us + _below(raft.random, options.election_timeout_us_max - shortest_us)
    if not raft.is_fit:
        raft.election_due_us += options.campaign_us_max


def _below(random: Random, bound: int) -> int:
    """What `random.randrange(bound)` gives, drawn in the same way: each message of a leader draws one, and that
    function runs interpreted."""
    bits = bound.bit_length()
    drawn = random.getrandbits(bits)
    while drawn >= bound:
        drawn = random.getrandbits(bits)
    return drawn


def tick(raft: Raft, now_us: int) -> None:
    if raft.role is Role.LEADER:
        _check_quorum(raft, now_us)
        if raft.role is Role.LEADER:
            transfer.tick(raft, now_us)
    elif now_us >= raft.election_due_us:
        if raft.may_campaign:
            _campaign(raft, now_us, pre=True)
        else:
            reset_timer(raft, now_us)


def stood_still(raft: Raft, us: int) -> None:
    """Who stood still heard nobody, and waits so much longer: for its leader, or for votes. That says nothing of the
    leader's silence, and where all stand still now and then, as with too little processor, each would depose a leader
    that lives. What this replica owes a leader ends as before, and so does what it saw itself of the leader's channel.
    """
    if raft.role is not Role.LEADER and (raft.role is not Role.FOLLOWER or raft.campaign_reason != REASON_SUSPICION):
        raft.election_due_us += us


def _check_quorum(raft: Raft, now_us: int) -> None:
    """A leader that no majority answers steps down (thesis, section 6.2; history 13): it may be deaf."""
    if now_us >= quorum_due_us(raft):
        become_follower(raft, raft.term, _NOBODY, now_us)


def quorum_due_us(raft: Raft) -> int:
    """When this leader steps down if no majority answers it before; never, where it is one by itself."""
    if raft.configuration.voter_ids == (raft.replica,):
        return _NEVER_US
    return raft.rounds.confirmed_at_us + raft.options.election_timeout_us_min + 1


def suspect(raft: Raft, leader: int, now_us: int) -> None:
    """This replica itself saw the leader's channel fall silent, so it owes it no loyalty (history 2).

    Followers start one after the other, so that they do not split the vote. One that looked earlier may have asked for
    a pre-vote already, and was not answered for loyalty: it is answered now. Where it has gone on since, the number of
    its campaign says so, and the answer counts for nothing.
    """
    if raft.role is not Role.FOLLOWER or leader != raft.leader or leader == _NOBODY:
        return
    raft.campaign_reason = REASON_SUSPICION
    start_us = now_us
    if raft.options.lease_reads and raft.heard_at_us is not None:
        # It may hold a lease that this replica confirmed: a leader that lost its subscription unknowingly still reads.
        start_us = max(now_us, raft.heard_at_us + raft.options.election_timeout_us_min)
    else:
        raft.heard_at_us = None
    others = raft.configuration.heirs_of(leader)
    rank = others.index(raft.replica) if raft.replica in others and raft.is_fit else len(others)
    raft.election_due_us = min(raft.election_due_us, start_us + rank * raft.options.suspicion_step_us)
    if raft.unanswered is not None:
        sender, request = raft.unanswered
        raft.unanswered = None
        on_vote_request(raft, sender, request, now_us)


def become_follower(raft: Raft, term: int, leader: int, now_us: int) -> None:
    """Follow `leader` (0: not known yet) in `term`, which is never below the own one."""
    assert term >= raft.term, f"term may not fall from {raft.term} to {term}"
    if term > raft.term:
        raft.term = term
        raft.vote = _NOBODY
    if raft.role is Role.LEADER:
        raft.drop_leadership()
    raft.role = Role.FOLLOWER
    raft.leader = leader
    raft.votes = {}
    if leader != _NOBODY:
        raft.campaigns = 0
        raft.heard_at_us = now_us
    elif not raft.options.lease_reads:
        raft.heard_at_us = None  # Else the lease of a leader that it answered rests on it, whatever term it hears of.
    raft.campaign_reason = ""
    reset_timer(raft, now_us)


def on_timeout_now(raft: Raft, sender: int, message: TimeoutNow, now_us: int) -> None:
    """The leader hands over (thesis, section 3.10): campaign at once, and without asking first."""
    asked_by_leader = raft.role is Role.FOLLOWER and (sender, message.term) == (raft.leader, raft.term)
    # A full voter in doubt takes over from a witness: it, at least, can change the membership where an operator asks.
    may_lead = raft.is_fit or (not raft.is_witness and raft.configuration.is_witness(sender))
    if asked_by_leader and raft.is_voter and may_lead:
        raft.campaign_reason = REASON_TRANSFER
        _campaign(raft, now_us, pre=False)


def campaign(raft: Raft, now_us: int) -> None:
    """An operator asks this replica to try to lead. It asks first whether it would be elected. Where lease reads are
    on, it does nothing while its own loyalty may be part of a leader's lease."""
    if raft.options.lease_reads and _is_loyal(raft, now_us):
        return
    if raft.role is not Role.LEADER and raft.is_voter and raft.is_fit:
        raft.campaign_reason = REASON_REQUEST
        _campaign(raft, now_us, pre=True)


def follow(raft: Raft, term: int, round_number: int, leader: int, now_us: int) -> None:
    """The leader of `term` has spoken. What it sent in a round that was heard of before, or in an earlier one, may come
    long after its end, and is no sign of life: copies of it keep nobody from electing another."""
    assert raft.role is not Role.LEADER or term > raft.term, f"two leaders in term {raft.term}"
    if (term, round_number) <= raft.heard_round:
        return
    raft.heard_round = (term, round_number)
    if term > raft.term or raft.role is not Role.FOLLOWER or raft.leader != leader:
        become_follower(raft, term, leader, now_us)
    else:
        raft.heard_at_us = now_us
        raft.campaign_reason = ""
        reset_timer(raft, now_us)


def _campaign(raft: Raft, now_us: int, *, pre: bool) -> None:
    """Ask for votes, or ask whether votes would be had. Only the former raises the term."""
    raft.campaign += 1
    if pre and raft.campaign_reason in ("", REASON_TRANSFER):
        raft.campaign_reason = REASON_TIMEOUT  # The leader asked for one campaign, not for those after it.
    raft.leader = _NOBODY
    raft.heard_at_us = None
    if pre:
        raft.role = Role.PRE_CANDIDATE
    else:
        raft.role = Role.CANDIDATE
        raft.term += 1
        raft.vote = raft.replica
    raft.votes = {raft.replica: True}
    options = raft.options
    wait_us = raft.random.randrange(options.campaign_us_min, options.campaign_us_max)
    raft.election_due_us = now_us + _lengthened(raft, wait_us)
    if _count(raft, now_us):
        return
    term = raft.term + 1 if pre else raft.term
    asked_to = raft.campaign_reason == REASON_TRANSFER
    request = VoteRequest(term, raft.log.last_index, raft.log.last_term, pre, raft.campaign, asked_to)
    raft.late += [Outgoing(voter, request) for voter in raft.configuration.voter_ids if voter != raft.replica]


def _lengthened(raft: Raft, wait_us: int) -> int:
    """Twice as long with each campaign that came to nothing; but not much longer than an election time-out, so that
    who can win tries soon after whatever kept it from winning."""
    raft.campaigns += 1
    doublings = (raft.campaigns - 1) // 2  # A pre-vote and a vote are one.
    return (
        wait_us if not doublings else min(wait_us << min(doublings, 8), raft.options.election_timeout_us_max + wait_us)
    )


def _count(raft: Raft, now_us: int) -> bool:
    """Go on where a majority said yes. A lost campaign waits for its time-out: another may be winning."""
    if raft.configuration.tally(raft.votes) is not Tally.WON:
        return False
    if raft.role is Role.PRE_CANDIDATE:
        _campaign(raft, now_us, pre=False)
    else:
        _become_leader(raft, now_us)
    return True


def _become_leader(raft: Raft, now_us: int) -> None:
    raft.role = Role.LEADER
    raft.campaigns = 0
    raft.leader = raft.replica
    raft.heard_at_us = None
    raft.rounds = Rounds(now_us)
    raft.spares = Spares()
    raft.uncommitted_bytes = payload_bytes(raft.log.entries[raft.log.commit - raft.log.offset :])
    next_index = raft.log.last_index + 1
    raft.progress = {}
    raft.transferring = None
    raft.passed_over = set()
    raft.lease_given_up = False
    raft.led_since_us = now_us
    raft.term_start_index = next_index
    changes.follow_configuration(raft)
    raft.append(next_index, [raft.term], [NOOP_ENTRY])


def _is_loyal(raft: Raft, now_us: int) -> bool:
    """Does this replica have a leader that it must not help to depose? (thesis, section 4.2.3)"""
    if raft.role is Role.LEADER:
        return True
    return raft.heard_at_us is not None and now_us - raft.heard_at_us < raft.options.election_timeout_us_min


def on_vote_request(raft: Raft, sender: int, request: VoteRequest, now_us: int) -> None:
    if request.term < raft.term:
        # Answered with the higher term, without which a pre-candidate that fell behind never learns of it
        # (etcd#8501, etcd#8243).
        _answer(raft, sender, request, granted=False)
        return
    if not request.transfer and _is_loyal(raft, now_us):
        if request.pre:
            raft.unanswered = sender, request
        return
    if request.pre:
        free = request.term > raft.term or raft.vote in (_NOBODY, sender)
        _answer(raft, sender, request, granted=free and raft.log.up_to_date(request.last_index, request.last_term))
        return
    if request.term > raft.term:
        reason = raft.campaign_reason
        due_us = raft.election_due_us
        become_follower(raft, request.term, _NOBODY, now_us)
        # Only a vote that is granted buys the candidate time: one that cannot win must not hold back one that can.
        raft.campaign_reason, raft.election_due_us = reason, max(due_us, now_us)
    granted = raft.vote in (_NOBODY, sender) and raft.log.up_to_date(request.last_index, request.last_term)
    if granted and raft.vote != sender:  # A copy of the question buys no time.
        raft.vote = sender
        raft.campaign_reason = ""
        reset_timer(raft, now_us)
    _answer(raft, sender, request, granted=granted)


def _answer(raft: Raft, sender: int, request: VoteRequest, *, granted: bool) -> None:
    term = request.term if granted else raft.term
    raft.late.append(Outgoing(sender, VoteResponse(term, granted, request.pre, request.campaign)))


def on_vote_response(raft: Raft, sender: int, response: VoteResponse, now_us: int) -> None:
    if response.term > raft.term and not (response.pre and response.granted):
        become_follower(raft, response.term, _NOBODY, now_us)
        return
    asked = Role.PRE_CANDIDATE if response.pre else Role.CANDIDATE
    if raft.role is not asked or response.campaign != raft.campaign:
        return
    if response.granted and response.term != raft.term + response.pre:
        return  # A vote counts in the term that it was given for, and in no other.
    raft.votes[sender] = response.granted
    _count(raft, now_us)
