"""What must hold of every run: one property a file, under the name that the papers give it.

A checker compares what is new with what was known, so that a run costs little more than itself. Each counts its
comparisons: a checker that never compared anything proves nothing.
"""

from __future__ import annotations

from typing import Final

from tests.simulation.checkers.caches_never_stale import CachesNeverStale
from tests.simulation.checkers.check_quorum import CheckQuorum
from tests.simulation.checkers.commit_durability import CommitDurability
from tests.simulation.checkers.configuration_safety import ConfigurationSafety
from tests.simulation.checkers.counters import Counters
from tests.simulation.checkers.deadlocks import Deadlocks
from tests.simulation.checkers.digests_equal import DigestsEqual
from tests.simulation.checkers.election_safety import ElectionSafety
from tests.simulation.checkers.ephemerals import Ephemerals
from tests.simulation.checkers.exactly_once import ExactlyOnce
from tests.simulation.checkers.expiry_in_time import ExpiryInTime
from tests.simulation.checkers.fencing_tokens import FencingTokens
from tests.simulation.checkers.first_come_first_served import FirstComeFirstServed
from tests.simulation.checkers.flow_control import FlowControl
from tests.simulation.checkers.leader_append_only import LeaderAppendOnly
from tests.simulation.checkers.leader_completeness import LeaderCompleteness
from tests.simulation.checkers.leader_stickiness import LeaderStickiness
from tests.simulation.checkers.leadership_transfer import LeadershipTransfer
from tests.simulation.checkers.lease_exclusion import LeaseExclusion
from tests.simulation.checkers.linearizability import Linearizability
from tests.simulation.checkers.lock_delays import LockDelays
from tests.simulation.checkers.lock_events import LockEventsComplete
from tests.simulation.checkers.log_matching import LogMatching
from tests.simulation.checkers.mutual_exclusion import MutualExclusion
from tests.simulation.checkers.no_lost_write import NoLostWrite
from tests.simulation.checkers.no_room import NoRoom
from tests.simulation.checkers.persistence_order import PersistenceOrder
from tests.simulation.checkers.pre_vote import PreVote
from tests.simulation.checkers.reads_never_stale import ReadsNeverStale
from tests.simulation.checkers.revisions import Revisions
from tests.simulation.checkers.round_confirmation import RoundConfirmation
from tests.simulation.checkers.session_leases import SessionLeases
from tests.simulation.checkers.snapshot_safety import SnapshotSafety
from tests.simulation.checkers.spoken_heartbeats import SpokenHeartbeats
from tests.simulation.checkers.stalled_disks import StalledDisks
from tests.simulation.checkers.stalls_spare_sessions import StallsSpareSessions
from tests.simulation.checkers.state_comparison import StateComparison
from tests.simulation.checkers.state_machine_safety import StateMachineSafety
from tests.simulation.checkers.terms_and_votes import TermsAndVotes
from tests.simulation.checkers.transactions import Transactions
from tests.simulation.checkers.watch_completeness import WatchCompleteness
from tests.simulation.checkers.witness_retention import WitnessRetention
from tests.simulation.watch import Checker

CHECKERS: Final[tuple[type[Checker], ...]] = (
    ElectionSafety,
    TermsAndVotes,
    PreVote,
    CheckQuorum,
    LeaderStickiness,
    LeadershipTransfer,
    FlowControl,
    StalledDisks,
    RoundConfirmation,
    SpokenHeartbeats,
    LeaderAppendOnly,
    LogMatching,
    LeaderCompleteness,
    StateMachineSafety,
    CommitDurability,
    PersistenceOrder,
    ConfigurationSafety,
    NoLostWrite,
    ExactlyOnce,
    NoRoom,
    ReadsNeverStale,
    CachesNeverStale,
    Linearizability,
    MutualExclusion,
    LeaseExclusion,
    FencingTokens,
    FirstComeFirstServed,
    LockDelays,
    Deadlocks,
    Transactions,
    Ephemerals,
    Revisions,
    WatchCompleteness,
    LockEventsComplete,
    Counters,
    StallsSpareSessions,
    SessionLeases,
    ExpiryInTime,
    DigestsEqual,
    SnapshotSafety,
    WitnessRetention,
    StateComparison,
)

OF_MIXED_WORK: Final[tuple[type[Checker], ...]] = (
    CachesNeverStale,
    Counters,
    Deadlocks,
    LockDelays,
    LockEventsComplete,
    Transactions,
    WatchCompleteness,
)
"""Properties of what clients do only where their work is mixed."""
