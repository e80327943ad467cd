"""Elections broken: votes, terms, who may win (Raft, sections 5.2 and 5.4.1; thesis, sections 6.2 and 9.6)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_CORE: Final = "coordinator.consensus.raft.core"
_ELECTIONS: Final = "coordinator.consensus.raft.elections"
_FREE: Final = "granted = raft.vote in (_NOBODY, sender)"
_HIGHER: Final = "if response.term > raft.term:\n        "
_TERM_OF_VOTE: Final = "if response.granted and response.term != raft.term + response.pre:"

MUTANTS: Final = (
    Mutant(
        "node-answers-for-followers-that-would-not",
        ("spoken-heartbeats",),
        "A node answers a spoken heartbeat for those alone whose log is the leader's, in its term",
        (
            Edit(
                "coordinator.consensus.raft.sleep:would_answer",
                "return follows and raft.term == raft.on_disk.term == said.term and _is_done(raft, said.last_index)",
                "return follows",
            ),
        ),
    ),
    Mutant(
        "vote-not-persisted",
        ("persistence-order",),
        "Raft, figure 2: votedFor is persistent state (PySyncObj#84, #202)",
        (
            Edit(
                f"{_CORE}:Raft.ready",
                "hard_state = HardState(self.term, self.vote, self.log.commit)",
                "hard_state = HardState(self.term, 0, self.log.commit)",
            ),
        ),
    ),
    Mutant(
        "term-not-persisted",
        ("persistence-order",),
        "Raft, figure 2: currentTerm is persistent state (PySyncObj#84, #202)",
        (
            Edit(
                f"{_CORE}:Raft.ready",
                "hard_state = HardState(self.term, self.vote, self.log.commit)",
                "hard_state = HardState(1, self.vote, self.log.commit)",
            ),
        ),
    ),
    Mutant(
        "vote-twice-in-a-term",
        ("persistence-order", "terms-and-votes"),
        "Raft, section 5.2: a server votes for at most one candidate in a term",
        (
            Edit(
                f"{_ELECTIONS}:on_vote_request",
                f"{_FREE} and raft.log.up_to_date",
                "granted = raft.log.up_to_date",
            ),
        ),
    ),
    Mutant(
        "vote-for-a-log-that-is-behind",
        ("leader-completeness",),
        "Raft, section 5.4.1: a voter denies its vote to a log less up to date than its own",
        (
            Edit(
                f"{_ELECTIONS}:on_vote_request",
                f"{_FREE} and raft.log.up_to_date(request.last_index, request.last_term)",
                _FREE,
            ),
            Edit(
                f"{_ELECTIONS}:on_vote_request",
                "granted=free and raft.log.up_to_date(request.last_index, request.last_term)",
                "granted=free",
            ),
        ),
    ),
    Mutant(
        "longer-log-wins",
        ("leader-completeness",),
        "Raft, section 5.4.1: the last term decides before the length (of two logs)",
        (
            Edit(
                "coordinator.consensus.raft.log:Log.up_to_date",
                "(last_term, last_index) >= (self.last_term, self.last_index)",
                "last_index >= self.last_index",
            ),
        ),
    ),
    Mutant(
        "pre-vote-raises-the-term",
        ("pre-vote",),
        "Thesis, section 9.6: a pre-vote changes no term",
        (
            Edit(
                f"{_ELECTIONS}:_campaign",
                "raft.role = Role.PRE_CANDIDATE",
                "raft.role, raft.term, raft.vote = Role.PRE_CANDIDATE, raft.term + 1, 0",
            ),
        ),
    ),
    Mutant(
        "pre-vote-left-out",
        ("pre-vote",),
        "Thesis, section 9.6: who could not win does not raise the term",
        (Edit(f"{_ELECTIONS}:tick", "_campaign(raft, now_us, pre=True)", "_campaign(raft, now_us, pre=False)"),),
    ),
    Mutant(
        "check-quorum-left-out",
        ("check-quorum",),
        "Thesis, section 6.2; history 13: a leader that no majority answers steps down",
        (
            Edit(
                f"{_ELECTIONS}:_check_quorum",
                "if now_us >= quorum_due_us(raft)",
                "if False and now_us",
            ),
        ),
    ),
    Mutant(
        "majority-of-half",
        ("persistence-order", "pre-vote", "round-confirmation"),
        "Raft, section 5.2: a majority is more than half",
        (Edit("coordinator.consensus.quorum:majority", "size // 2 + 1", "(size + 1) // 2 - (size > 3)"),),
    ),
    Mutant(
        "vote-of-an-earlier-campaign",
        ("election-safety", "pre-vote"),
        "Raft, section 5.2: a vote counts in the term that it was given for",
        (
            Edit(f"{_ELECTIONS}:on_vote_response", _TERM_OF_VOTE, "if False:"),
            Edit(
                f"{_ELECTIONS}:on_vote_response",
                "if raft.role is not asked or response.campaign != raft.campaign:",
                "if raft.role is not asked:",
            ),
        ),
    ),
    Mutant(
        "campaign-numbers-repeat-over-a-restart",
        ("pre-vote",),
        "Raft, section 5.2: an answer to a campaign before the restart counts for nothing after it",
        (
            Edit(f"{_ELECTIONS}:on_vote_response", _TERM_OF_VOTE, "if False:"),
            Edit(f"{_CORE}:Raft.__init__", "self.campaign = random.getrandbits(48)", "self.campaign = 0"),
        ),
    ),
    Mutant(
        "vote-before-its-journal",
        ("persistence-order",),
        "docs/design.md, rule 3: a vote leaves after its fsync",
        (
            Edit(f"{_ELECTIONS}:_answer", "raft.late.append", "(raft.early if granted else raft.late).append"),
            Edit(f"{_CORE}:Raft.ready", "if hard_state.term != self.on_disk.term:", "if False:"),
        ),
    ),
    Mutant(
        "higher-term-not-followed",
        ("terms-and-votes",),
        "Raft, section 5.1: who sees a higher term becomes a follower in it",
        (
            Edit(
                "coordinator.consensus.raft.replication:on_append_response",
                f"{_HIGHER}elections.become_follower(raft, response.term, 0, now_us)\n",
                _HIGHER,
            ),
        ),
    ),
)
