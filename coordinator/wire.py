"""The messages on the Redis channels: envelope, version and signature, and the bodies they carry.

Every packet is one envelope: version, kind, sender, receiver, body, and a keyed BLAKE2b over all of them. A packet
that fails a check is dropped by the reader, which counts the reason; nothing here decides what a message means.

Keys: nodes share the peer key. A client signs with a key derived one way from its token, which the
log keeps; answers to it are signed with the same key. Duplicates of any age are part of the network model (rule 1,
history 7), so nothing here tries to tell an old packet from a new one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from coordinator.consensus.membership import Member
from coordinator.consensus.raft import messages
from coordinator.statemachine.commands import Command, GetKey, LockList, Query, Result
from coordinator.statemachine.files import GetStat, ReadChanges, ReadFile
from coordinator.statemachine.lock_commands import ReadLockEvents, ReadLockLives

VERSION: Final = 1
PACKET_BYTES_MAX: Final = 8 * 1024 * 1024
"""Packets above this are dropped unread. The largest honest one carries a few entries of 1 MiB."""
PACKET_BYTES_TARGET: Final = 2 * 1024 * 1024
"""Whoever sends closes a packet above this: far below what a reader takes."""

PEER: Final = 1
REQUEST: Final = 2
REPLY: Final = 3
FEED: Final = 4
REFUSAL: Final = 5
"""Unsigned: a node tells a caller whose token it does not know why it will not answer. Never decides anything."""

_MAC_BYTES: Final = 16
NODE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
REALM: Final = re.compile(r"[0-9a-f]{8}")


class WireError(Exception):
    """A packet that is not one of ours. `reason` is a short word for a counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# --- channels -------------------------------------------------------------------------------------


class Channels(NamedTuple):
    """Channel names of one installation (`realm`), so that several can share a Redis."""

    realm: str

    def peer(self, node: str) -> str:
        """A node's mailbox for other nodes."""
        return f"conclave:{self.realm}:p:{node}"

    def client(self, node: str) -> str:
        """A node's mailbox for clients."""
        return f"conclave:{self.realm}:c:{node}"

    @property
    def discovery(self) -> str:
        """Where a client that knows no node yet asks; every node on this Redis listens."""
        return f"conclave:{self.realm}:c:_any"

    def feed(self, node: str) -> str:
        """What a node tells dashboards."""
        return f"conclave:{self.realm}:f:{node}"

    @property
    def reply_prefix(self) -> str:
        return f"conclave:{self.realm}:r:"

    def reply(self) -> str:
        """A fresh channel of a client's own, with a name that nobody can guess."""
        return self.reply_prefix + secrets.token_hex(16)


# --- keys -----------------------------------------------------------------------------------------


class Token(NamedTuple):
    """A client's credential: `conclave_REALM_ID_SECRET`. Only what is derived from the secret is kept."""

    realm: str
    token_id: str
    secret: str

    @classmethod
    def new(cls, realm: str) -> Token:
        return cls(realm, secrets.token_hex(8), secrets.token_hex(32))

    @classmethod
    def parse(cls, text: str) -> Token:
        """Raises ValueError; the message never repeats the secret."""
        match = re.fullmatch(r"conclave_([0-9a-f]{8})_([0-9a-f]{16})_([0-9a-f]{64})", text.strip())
        if match is None:
            raise ValueError("a token reads conclave_REALM_ID_SECRET, as `manage.py token NAME` printed it")
        return cls(*match.groups())

    def __repr__(self) -> str:
        return f"Token({self.realm!r}, {self.token_id!r})"

    def __str__(self) -> str:
        """The credential itself: for whoever is to have it, never for a log."""
        return f"conclave_{self.realm}_{self.token_id}_{self.secret}"

    @property
    def key(self) -> bytes:
        """The key that signs requests and answers; the log keeps it, the secret cannot be had from it."""
        return hashlib.blake2b(
            bytes.fromhex(self.secret), digest_size=32, person=b"conclave-sign", salt=bytes.fromhex(self.token_id)
        ).digest()


# --- envelope -------------------------------------------------------------------------------------


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """`sender` and `receiver`: node names for PEER; token id and node name (or "*") for REQUEST; node name
    and reply channel for REPLY and REFUSAL; node name and "" for FEED."""

    version: int
    kind: int
    sender: str
    receiver: str
    mac: bytes
    body: bytes


_envelopes = msgspec.msgpack.Decoder(Envelope)
_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


HEADS_MAX: Final = 1_024
HEAD_BYTES_MAX: Final = 256
_heads: Final[dict[tuple[bytes, int, str, str], hashlib.blake2b]] = {}
"""What a hash begins with, for the keys and names that this process speaks with."""


def _mac(key: bytes, kind: int, sender: str, receiver: str, body: bytes) -> bytes:
    head = _heads.get((key, kind, sender, receiver))
    if head is None:
        names = f"{VERSION}\n{kind}\n{sender}\n{receiver}\n".encode()
        head = hashlib.blake2b(names, digest_size=_MAC_BYTES, key=key)
        if len(names) <= HEAD_BYTES_MAX:  # Longer ones are nobody's.
            if len(_heads) >= HEADS_MAX:
                _heads.clear()
            _heads[key, kind, sender, receiver] = head
    digest = head.copy()
    digest.update(body)
    return digest.digest()


def seal(key: bytes, kind: int, sender: str, receiver: str, body: Any) -> bytes:
    """Encode `body` and sign it. Names hold no newline (their patterns say so), so the head is unambiguous."""
    payload = body if isinstance(body, bytes) else encode(body)
    return encode(Envelope(VERSION, kind, sender, receiver, _mac(key, kind, sender, receiver, payload), payload))


class Refusal(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """`code`: REFUSED_WAITING or REFUSED_TOKEN; `message` says it in words; `pid` is the node's process."""

    code: str
    message: str
    pid: int


REFUSED_WAITING: Final = "waiting"
REFUSED_TOKEN: Final = "unknown-token"  # noqa: S105 - a word, not a secret


def seal_refusal(sender: str, receiver: str, refusal: Refusal) -> bytes:
    return encode(Envelope(VERSION, REFUSAL, sender, receiver, b"", encode(refusal)))


def open_envelope(packet: bytes, kind: int) -> Envelope:
    """Parse a packet, not yet verified. Raises WireError: oversize, malformed, version, kind."""
    if len(packet) > PACKET_BYTES_MAX:
        raise WireError("oversize")
    try:
        envelope = _envelopes.decode(packet)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise WireError("malformed") from None
    if envelope.version != VERSION:
        raise WireError("version")
    if envelope.kind != kind:
        raise WireError("kind")
    return envelope


def verify(envelope: Envelope, key: bytes) -> None:
    """Raises WireError("signature") unless the envelope was signed with `key`."""
    try:
        mac = _mac(key, envelope.kind, envelope.sender, envelope.receiver, envelope.body)
    except ValueError:
        raise WireError("signature") from None  # A key that BLAKE2 does not take signs nothing.
    if not hmac.compare_digest(mac, envelope.mac):
        raise WireError("signature")


# --- between nodes --------------------------------------------------------------------------------

Routed = tuple[int, int, int, int, msgspec.Raw]
"""Cluster, sending replica, receiving replica, the message's kind (`messages.KINDS`), the message."""


class StateDigest(NamedTuple):
    """A digest of the sender's state machine after the entry `at`, over a snapshot of `version`. `wanted`: it asks for
    the receiver's.

    Between replicas, beside the engine's messages: `coordinator/replica/comparison.py`.
    """

    version: int
    at: int
    digest: bytes
    wanted: bool


class Whereabouts(NamedTuple):
    """The sender's mailbox is on the Redis at this address. Of no replica: it is for the node."""

    address: str


class Sleeper(NamedTuple):
    """A quiet cluster: who leads it in `term`, whom this is for, and where the log ends, all of it committed."""

    cluster: int
    leader: int
    follower: int
    term: int
    last_index: int


class SleepBeat(NamedTuple):
    """One heartbeat for all these. Of no replica: from node to node, in a packet of its own, since who does not know it
    drops the packet. `boot` and `number` name it and never repeat (`coordinator/replica/sleep.py`)."""

    boot: int
    number: int
    sleepers: list[Sleeper]


class SleepAnswer(NamedTuple):
    """The followers of all those clusters would have answered that, but for those of the clusters `awake`."""

    boot: int
    number: int
    awake: list[int]


_KINDS: Final = (*messages.KINDS, StateDigest, Whereabouts, SleepBeat, SleepAnswer)
PeerWord = messages.Message | StateDigest | Whereabouts | SleepBeat | SleepAnswer
_routed = msgspec.msgpack.Decoder(list[Routed])
_message_decoders: Final = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_message_kinds: Final = {kind: number for number, kind in enumerate(_KINDS)}


class PeerMessage(NamedTuple):
    cluster: int
    sender: int
    receiver: int
    message: PeerWord


def encode_peer(batch: list[PeerMessage]) -> bytes:
    return encode([(m.cluster, m.sender, m.receiver, _message_kinds[type(m.message)], m.message) for m in batch])


def decode_peer(body: bytes) -> list[PeerMessage]:
    """Raises WireError("malformed")."""
    try:
        return [
            PeerMessage(
                cluster,
                sender,
                receiver,
                cast("PeerWord", _message_decoders[kind].decode(raw)),
            )
            for cluster, sender, receiver, kind, raw in _routed.decode(body)
        ]
    except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError):
        raise WireError("malformed") from None


# --- clients --------------------------------------------------------------------------------------


class _Struct(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    pass


FOR_TOKEN: Final = "token:"  # noqa: S105 - what stands before an id
"""In `act_for`, before the id of a token: act for whoever has it, with no more than that token may."""


class CommandRequest(_Struct, tag=1, frozen=True):
    """Apply `command` once. `command` stays encoded: the node checks it and appends the bytes as they are. `act_for`:
    a principal, or a token (FOR_TOKEN), that the caller asks for; "": it asks for itself."""

    id: int
    cluster: int
    act_for: str
    command: msgspec.Raw


class QueryRequest(_Struct, tag=2, frozen=True):
    """A linearizable read: answered by a leader that a majority confirmed after the request came."""

    id: int
    cluster: int
    act_for: str
    query: Query


class KeepAliveRequest(_Struct, tag=3, frozen=True):
    """Give `session` its full time to live again. Answered like a read (history 1).

    A copy of it renews nothing (history 7): `term` names the leadership that it is for, and within that `count` only
    grows for the caller's channel.
    """

    id: int
    cluster: int
    act_for: str
    session: int
    term: int
    count: int


class WatchRequest(_Struct, tag=30, frozen=True):
    """A `ReadChanges` that waits: answered as soon as there is something of what it asks for, else after `wait_ms` with
    a page without changes, which says where to go on. Asked again under the same `id` it takes the place of the
    earlier. Whoever is turned away asks the next leader from the same position."""

    id: int
    cluster: int
    act_for: str
    query: ReadChanges
    wait_ms: int


CachedQuery = ReadFile | GetStat | GetKey
"""What a client may keep, where it is of now."""


class CachedQueryRequest(_Struct, tag=40, frozen=True):
    """A linearizable read whose answer the client would like to keep, for a session of its own that has begun to cache.
    Answered by `CachedAnswer` where it may, else by `Answer`."""

    id: int
    cluster: int
    session: int
    query: CachedQuery


class RenewCacheRequest(_Struct, tag=41, frozen=True):
    """What the client keeps under (`term`, `number`) is still of use to it. Answered like a read, with `CacheRenewed`,
    and not while it owes the word that it has dropped something. `count` only grows: a copy renews nothing."""

    id: int
    cluster: int
    session: int
    term: int
    number: int
    count: int


class DroppedRequest(_Struct, tag=42, frozen=True):
    """What the `Invalidation` of (`term`, `number`, `ticket`) names is served no more, nor is anything under an earlier
    (`term`, `number`) (`ticket` 0: that alone). Has no answer; the leader says it again until it hears this."""

    id: int
    cluster: int
    session: int
    term: int
    number: int
    ticket: int


class EventsRequest(_Struct, tag=31, frozen=True):
    """A `WatchRequest`, for changes or for events of locks, that is answered by `Told`. `term`: of the leader that
    answered before (0: nobody has). A later one answers at once, so that it is known from where on another leads. Nodes
    of programs before level 4 do not know it."""

    id: int
    cluster: int
    act_for: str
    query: ReadChanges | ReadLockEvents | ReadLockLives
    wait_ms: int
    term: int


class DirectoryRequest(_Struct, tag=4, frozen=True):
    """Who is there: any node answers at once from what it knows."""

    id: int


class StatusRequest(_Struct, tag=5, frozen=True):
    """What this node's replica of the named cluster looks like from inside, now."""

    id: int
    cluster_name: str


class ConfirmRequest(_Struct, tag=6, frozen=True):
    """Is this node a leader that a majority confirms now? For readiness."""

    id: int
    cluster: int


class CrashRequest(_Struct, tag=7, frozen=True):
    """Fault injection: end this node's process at once, as `kill -9` would. `pid` names the process that is meant, so
    that a copy does not end the next one."""

    id: int
    cluster: int
    act_for: str
    pid: int


class ProgressRequest(_Struct, tag=20, frozen=True):
    """An operator asks the leader: who is a member, and how far has each come? Takes the right to administer, as all
    of an operator's requests do."""

    id: int
    cluster: int
    act_for: str


class ChangeRequest(_Struct, tag=21, frozen=True):
    """Make the membership what `voters` and `learners` say. Done where it is so already.

    Whoever asks has looked first (`Progress`): `term` names the leadership, and `seen_index` its commit index then.
    A configuration behind that index is one that the asker has not seen, so the request is refused: neither a copy
    of it nor another operator's older word undoes a later change.
    """

    id: int
    cluster: int
    act_for: str
    term: int
    seen_index: int
    voters: tuple[Member, ...]
    learners: tuple[Member, ...]


class TransferRequest(_Struct, tag=22, frozen=True):
    """Hand the leadership of `term` to the replica `target`. Answered when that has begun; it may come to nothing. To
    name the leader's own replica aborts a transfer that is under way."""

    id: int
    cluster: int
    act_for: str
    term: int
    target: int


class StepDownRequest(_Struct, tag=23, frozen=True):
    """Give up the leadership of `term`, to whoever is furthest."""

    id: int
    cluster: int
    act_for: str
    term: int


class CompactRequest(_Struct, tag=24, frozen=True):
    """Take a snapshot at the next mark, and cut the log behind it, unless there is one at `up_to` or later. For one
    node's replica; answered at once."""

    id: int
    cluster: int
    act_for: str
    up_to: int


OperatorRequest = ProgressRequest | ChangeRequest | TransferRequest | StepDownRequest | CompactRequest

Request = (
    CommandRequest
    | QueryRequest
    | KeepAliveRequest
    | DirectoryRequest
    | StatusRequest
    | ConfirmRequest
    | WatchRequest
    | CachedQueryRequest
    | RenewCacheRequest
    | DroppedRequest
    | EventsRequest
    | CrashRequest
    | OperatorRequest
)


class RequestBatch(_Struct, frozen=True):
    """`reply` is the client's own channel; it must carry the clients' prefix."""

    reply: str
    requests: list[Request]


class Answer(_Struct, tag=1, frozen=True):
    """The result of a command or a query."""

    id: int
    result: Result


class Overloaded(_Struct, tag=50, frozen=True):
    """There was no room for this copy of a request, and it is not applied: ask again after `retry_ms`. In a packet of
    its own: a client of before this drops that packet alone, and asks again when it is due."""

    id: int
    message: str
    retry_ms: int


class Told(_Struct, tag=31, frozen=True):
    """The answer to an `EventsRequest`, by the leader of `term`."""

    id: int
    result: Result
    term: int


class KeptAlive(_Struct, tag=2, frozen=True):
    id: int
    session: int
    ttl_ms: int


class OtherTerm(_Struct, tag=8, frozen=True):
    """A keep-alive named another leadership than this one of `term`: nothing was renewed, ask again."""

    id: int
    term: int


class CachedAnswer(_Struct, tag=40, frozen=True):
    """The result of a `CachedQueryRequest`. The client may answer from it for the length of the cache lease, counted
    from the sending of the question, and longer by renewals of (`term`, `number`): all that it may keep has the same,
    and of two numbers the greater is the later. `ticket`: of the last invalidation that was told before; an answer from
    before one that the client has taken in is not kept."""

    id: int
    result: Result
    term: int
    number: int
    ticket: int
    lease_ms: int


class CacheRenewed(_Struct, tag=41, frozen=True):
    """(`term`, `number`) holds on. Where that is another than the client's, what it keeps is not by this leader, or not
    any more, and nothing of it may be served."""

    id: int
    term: int
    number: int
    lease_ms: int


class Invalidation(_Struct, tag=42, frozen=True):
    """Not an answer: what is kept of `paths` (`everything`: of any) is about to change. Told until the client says that
    it serves it no more, or its lease has run out."""

    cluster: int
    session: int
    term: int
    number: int
    ticket: int
    paths: tuple[str, ...]
    everything: bool


class NotLeader(_Struct, tag=3, frozen=True):
    """Ask `leader` instead ("" where this node knows of none)."""

    id: int
    leader: str


class ClusterEntry(_Struct, frozen=True):
    name: str
    cluster: int
    leader: str
    term: int
    nodes: tuple[str, ...]


class Directory(_Struct, tag=4, frozen=True):
    """`nodes`: each node's name and the address of its mailbox ("": the Redis on which this was asked)."""

    id: int
    node: str
    nodes: tuple[tuple[str, str], ...]
    clusters: tuple[ClusterEntry, ...]


class ReplicaReport(_Struct, frozen=True):
    """One replica as its node sees it. `role`: leader, follower, candidate, pre-candidate, learner, witness, waiting.
    `waiting_for` says, in words, what a replica in role waiting waits for."""

    node: str
    cluster: int
    cluster_name: str
    replica: int
    pid: int
    role: str
    leader: str
    term: int
    vote: str
    last_index: int
    commit_index: int
    applied_index: int
    digest: str
    waiting_for: str
    voters: tuple[str, ...]
    drops: dict[str, int]
    faults_allowed: bool


class StatusAnswer(_Struct, tag=5, frozen=True):
    id: int
    report: ReplicaReport


class Confirmed(_Struct, tag=6, frozen=True):
    id: int
    term: int


class GrantPushed(_Struct, tag=7, frozen=True):
    """Not an answer: a queued acquisition was granted. May be lost, so the waiter also asks (history 8)."""

    cluster: int
    session: int
    name: str
    acquisition: int
    token: int


class MemberProgress(_Struct, frozen=True):
    """How far one member has come, as the leader counts it. `state`: "leader", or as etcd names a follower's: probe,
    replicate, snapshot. `heard_ms`: since it last answered; -1: not in this leadership. The last two: of the snapshot
    that it is being sent, how much has arrived, and its size in bytes."""

    replica: int
    match: int
    state: str
    heard_ms: int
    snapshot_acked: int
    snapshot_size: int


class Progress(_Struct, tag=20, frozen=True):
    """The membership and how each member is doing, as the leader of `term` on `node` sees it.

    `configuration_index`: where the configuration in force is in the log; `outgoing`: the voters of before, while it is
    joint. `promote_lag_max`: a learner that lacks more entries than this is not made a voter. `quorum_ms`: a member not
    heard for so long does not count as answering.
    """

    id: int
    node: str
    replica: int
    term: int
    last_index: int
    commit_index: int
    first_index: int
    configuration_index: int
    voters: tuple[Member, ...]
    outgoing: tuple[Member, ...]
    learners: tuple[Member, ...]
    members: tuple[MemberProgress, ...]
    promote_lag_max: int
    quorum_ms: int


Reply = (
    Answer
    | Told
    | KeptAlive
    | OtherTerm
    | NotLeader
    | Directory
    | StatusAnswer
    | Confirmed
    | GrantPushed
    | Progress
    | CachedAnswer
    | CacheRenewed
    | Invalidation
    | Overloaded
)


# --- feed -----------------------------------------------------------------------------------------


class Election(_Struct, frozen=True):
    """One election this node saw end. `reason` says in words how it began; `votes` and `voters` are known to the
    winner alone (0 elsewhere). `at_ms` is wall-clock time, for people only. `waited_ms`: how long the
    cluster had no leader, as the winner counted it."""

    term: int
    leader: str
    reason: str
    votes: int
    voters: int
    at_ms: int
    waited_ms: int


class LogCell(_Struct, frozen=True):
    index: int
    term: int
    what: str


class Feed(_Struct, frozen=True):
    """One report of a node about one cluster. `boot` and `number` order them: numbers of one boot have no gap
    unless a message was lost; each report is whole, so that a loss heals with the next one.

    `locks` is there from the leader alone, at most LOCKS_MAX of them with the true counts beside them.
    """

    boot: int
    number: int
    report: ReplicaReport
    elections: tuple[Election, ...]
    log: tuple[LogCell, ...]
    first_index: int
    locks: LockList | None
    commits_per_s: float
    commit_ms_p50: float
    commit_ms_p99: float
    fsync_ms_p50: float


FEED_LOCKS_MAX: Final = 200
FEED_LOG_CELLS: Final = 24

_requests = msgspec.msgpack.Decoder(RequestBatch)
_replies = msgspec.msgpack.Decoder(list[Reply])
_commands = msgspec.msgpack.Decoder(Command)
_request = msgspec.msgpack.Decoder(Request)
_refusals = msgspec.msgpack.Decoder(Refusal)
_feeds = msgspec.msgpack.Decoder(Feed)


def encode_requests(reply: str, requests: Sequence[Request | msgspec.Raw]) -> bytes:
    """A `RequestBatch` of requests, some of which are encoded already."""
    return encode((reply, requests))


def decode_requests(body: bytes) -> RequestBatch:
    """Raises WireError("malformed")."""
    return _decode(_requests, body)


def check_request(encoded: bytes) -> None:
    """Would a node take it? One that it would not costs the whole packet. Raises ValueError, saying what was expected,
    what came, and at which place."""
    request = _request.decode(encoded)
    if type(request) is CommandRequest:
        _commands.decode(request.command)


def decode_command(raw: bytes | msgspec.Raw) -> Command:
    """Raises WireError("malformed")."""
    return _decode(_commands, raw)


def decode_replies(body: bytes) -> list[Reply]:
    """Raises WireError("malformed")."""
    return _decode(_replies, body)


def decode_refusal(body: bytes) -> Refusal:
    """Raises WireError("malformed")."""
    return _decode(_refusals, body)


def decode_feed(body: bytes) -> Feed:
    """Raises WireError("malformed")."""
    return _decode(_feeds, body)


def _decode(decoder: msgspec.msgpack.Decoder[_T], body: bytes | msgspec.Raw) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise WireError("malformed") from None
