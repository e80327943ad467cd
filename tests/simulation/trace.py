"""A run in words: one event a line, and a legend. Replaying a seed gives the same lines."""

from __future__ import annotations

from typing import Final

from coordinator import wire
from coordinator.consensus.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from coordinator.wire import WireError

LEGEND: Final = """\
time         who      what
0.123456 s   node2    <- node1: ...     node2 takes a message of node1 from its mailbox
             append   t term, n@i: n entries behind index i (of term), c commit index, r round of the leader
             ack      t term, up to index, r round; "no" with where the logs may agree
             vote?    t term, the log's last index and term; "pre" only asks; vote: the answer
             snapshot t term, up to index (of term), which bytes of how many, r round; "has": how much is there
             campaign the leader of that term hands over: the receiver is to ask for votes at once
             node2    becomes leader, candidate ... of t term, its log's last index (of term), c commit index
             fault    what the injector does: kind, whom it hits, at what moment, for how long, how hard (0 to 1)
             violation is where a property did not hold"""


def describe(data: bytes) -> str:
    """What a packet says, in a few words."""
    for kind, read in ((wire.PEER, _peer), (wire.REQUEST, _request), (wire.REPLY, _reply)):
        try:
            envelope = wire.open_envelope(data, kind)
        except WireError:
            continue
        try:
            return read(envelope.body)
        except WireError:
            return "a word that nobody understands"
    return "a word that is not signed"


def _peer(body: bytes) -> str:
    return "; ".join(_message(routed.message) for routed in wire.decode_peer(body))


def _message(message: object) -> str:
    match message:
        case AppendEntries(term, prev_index, prev_term, commit, number, _, entries):
            return f"append t{term} {len(entries)}@{prev_index}({prev_term}) c{commit} r{number}"
        case AppendResponse(term, number, success, match, hint_index, hint_term):
            if success:
                return f"ack t{term} up to {match} r{number}"
            return f"ack t{term} no: not {match}, agrees at {hint_index}({hint_term}) r{number}"
        case VoteRequest(term, last_index, last_term, pre, _):
            return f"{'pre-' if pre else ''}vote? t{term} log {last_index}({last_term})"
        case VoteResponse(term, granted, pre, _):
            return f"{'pre-' if pre else ''}vote t{term} {'yes' if granted else 'no'}"
        case InstallSnapshot(term, number, last_index, last_term, _, size, offset, data):
            return f"snapshot t{term} up to {last_index}({last_term}) {offset}-{offset + len(data)} of {size} r{number}"
        case SnapshotResponse(term, number, last_index, offset):
            return f"has t{term} of the snapshot up to {last_index}: {offset} bytes r{number}"
        case TimeoutNow(term):
            return f"campaign! t{term}"
    return type(message).__name__


def _request(body: bytes) -> str:
    parts = []
    for request in wire.decode_requests(body).requests:
        if isinstance(request, wire.CommandRequest):
            command = wire.decode_command(request.command)
            parts.append(f"{command.session}/{command.number} {_words(command.op)}")
        elif isinstance(request, wire.QueryRequest):
            parts.append(_words(request.query))
        elif isinstance(request, wire.KeepAliveRequest):
            parts.append(f"keep alive {request.session}")
        else:
            parts.append(type(request).__name__)
    return "; ".join(parts)


def _reply(body: bytes) -> str:
    return "; ".join(
        _words(reply.result if isinstance(reply, wire.Answer) else reply) for reply in wire.decode_replies(body)
    )


def _words(thing: object) -> str:
    if isinstance(thing, wire.Directory):
        return "directory: " + ", ".join(f"{entry.leader or 'nobody'} leads t{entry.term}" for entry in thing.clusters)
    fields = ", ".join(str(getattr(thing, name)) for name in getattr(thing, "__struct_fields__", ()))
    return f"{type(thing).__name__}({fields})"[:160]


def line(time_us: int, who: str, what: str) -> str:
    return f"{time_us / 1e6:.6f} s  {who:8} {what}"
