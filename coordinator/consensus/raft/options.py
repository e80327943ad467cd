"""The times and bounds of a Raft engine, each with its unit and the reason for its default."""

from __future__ import annotations

from typing import Final, NamedTuple


class Options(NamedTuple):
    heartbeat_us: int = 60_000
    """A tenth of the shortest election time-out, and never later than one and a half of it: five may be lost."""
    quiet_us: int = 2_000_000
    quiet_heartbeat_us: int = 240_000
    """A leader whose followers have all that it has, and that was asked nothing new for `quiet_us`, beats this seldom,
    at the same moments as all others of its node; at most 0.4 of the shortest election time-out."""
    spare_us: int = 0
    """Followers that are not needed for a majority are sent entries at moments that are so far apart (`spares.py`); 0:
    at once, as the others are. At most a heartbeat."""
    election_timeout_us_min: int = 600_000
    """Also how long stickiness and check-quorum last. A Python process on a busy machine is silent for 300 ms
    now and then; twice that is no reason to lose a leader."""
    election_timeout_us_max: int = 1_000_000
    """With the vote itself a silent death costs at most about 1.1 s."""
    campaign_us_min: int = 150_000
    campaign_us_max: int = 300_000
    """How long a candidate waits for votes before it tries again; a vote is two hops and two commits of a journal, one
    after the other. Each campaign that fails doubles it, up to the longest election time-out, for disks that are slow.
    """
    suspicion_step_us: int = 25_000
    """Followers that saw the leader's channel fall silent start one after the other, in this step, so that
    they do not split the vote. Above the interval at which the channel is looked at (20 ms)."""
    message_bytes_max: int = 512 * 1024
    message_entries_max: int = 1_024
    """Of one AppendEntries; a single larger entry still goes alone. Both bound what a turn takes for one that lacks
    much: a leader sends it no more than `ROUND_MESSAGES_MAX` of these in one."""
    inflight_bytes_max: int = 1024 * 1024
    inflight_messages_max: int = 64
    """Sent to one follower and not yet acknowledged. Far below the 32 MB at which Redis cuts a subscriber."""
    uncommitted_bytes_max: int = 16 * 1024 * 1024
    """Of payload. Proposals are refused above this; an empty one never is."""
    snapshot_chunk_bytes: int = 256 * 1024
    snapshot_window_bytes: int = 1024 * 1024
    """Of a snapshot, sent to one follower and not yet acknowledged."""
    lease_reads: bool = False
    """May a leader answer reads within its lease, without asking a majority? Off: then no clock is trusted in a read.

    On, this is assumed: over one election time-out no two members' monotonic clocks drift apart by more than one part
    in `lease_drift_share`, and none stands still, as CLOCK_MONOTONIC does while its machine is suspended. A
    member that restarts keeps still for an election time-out, since it forgot whom it heard, and the crash hint waits
    for the lease (history 2).
    """
    lease_drift_share: int = 100
    """At least 2, for at 1 no lease is left; at most so large that the drift is a microsecond."""
    promote_lag_entries_max: int = 256
    """A learner that lacks more than this is not caught up, and is not made a voter."""
    disk_stall_us: int = 300_000
    """A leader whose journal took longer than this hands over to a replica that keeps up: half the shortest election
    time-out, before the others lose it."""
    stall_pause_us: int = 10_000_000
    """But not one that leads for less than this: where all disks are slow, giving way helps nobody."""
    priority_pause_us: int = 3_000_000
    """A leader waits so long, after its election and between two tries, before it gives way to a preferred one."""


LEAST: Final = {
    "heartbeat_us": 1,
    "quiet_us": 0,
    "quiet_heartbeat_us": 1,
    "spare_us": 0,
    "election_timeout_us_min": 2,
    "election_timeout_us_max": 3,
    "campaign_us_min": 1,
    "campaign_us_max": 2,
    "suspicion_step_us": 0,
    "message_bytes_max": 1,
    "message_entries_max": 1,
    "inflight_bytes_max": 1,
    "inflight_messages_max": 1,
    "uncommitted_bytes_max": 1,
    "snapshot_chunk_bytes": 1,
    "snapshot_window_bytes": 1,
    "lease_drift_share": 2,
    "promote_lag_entries_max": 0,
    "disk_stall_us": 1,
    "stall_pause_us": 0,
    "priority_pause_us": 0,
}
"""Below these, something never ends, never begins, or divides by nothing. A chunk of a snapshot may be larger than the
window, and a message of entries too: the last that begins within it still goes."""


def quiet_beat_us(options: Options) -> int:
    """Between two heartbeats of a quiet cluster."""
    return max(options.heartbeat_us, min(options.quiet_heartbeat_us, options.election_timeout_us_min * 2 // 5))


def check(options: Options) -> None:
    """Raises ValueError, which says what was expected and what came, for what would break the algorithm's assumptions
    or let it stand still."""
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    shortest_us = options.election_timeout_us_min
    if options.heartbeat_us * 2 > shortest_us:
        raise ValueError(
            f"heartbeat_us must be at most half of election_timeout_us_min, {shortest_us}, got {options.heartbeat_us}"
        )
    if options.spare_us > options.heartbeat_us:
        raise ValueError(f"spare_us must be at most heartbeat_us, {options.heartbeat_us}, got {options.spare_us}")
    if options.election_timeout_us_max <= shortest_us:
        raise ValueError(
            "election_timeout_us_max must be above election_timeout_us_min, "
            f"{shortest_us}, got {options.election_timeout_us_max}"
        )
    if options.campaign_us_max <= options.campaign_us_min:
        raise ValueError(
            f"campaign_us_max must be above campaign_us_min, {options.campaign_us_min}, got {options.campaign_us_max}"
        )
    if options.lease_drift_share > shortest_us:
        raise ValueError(  # The lease would end no earlier than the time-out that it must not outlast.
            f"lease_drift_share must be at most election_timeout_us_min, {shortest_us}, got {options.lease_drift_share}"
        )
