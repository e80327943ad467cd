"""The shapes of the API: what may come in, strictly, and what goes out. Names and meanings are those of the documents.

Sessions are strings here: an `s` and the session's number. Times are in milliseconds.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from ninja import Path, Schema
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from coordinator.api.errors import Refused
from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import TTL_MS_MAX, TTL_MS_MIN, WAIT_MS_MAX
from coordinator.statemachine.lock_commands import Mode

TTL_MS_DEFAULT: Final = 15_000
ACQUISITION_MAX: Final = 2**63 - 1
_SESSION: Final = re.compile(r"s([1-9][0-9]{0,15})")


# --- names ----------------------------------------------------------------------------------------


def _well_formed_session(text: str) -> str:
    if not _SESSION.fullmatch(text):
        raise ValueError("expected a session as acquire answered it, such as s42")
    return text


ClusterName = Annotated[str, Path(description="Which cluster; `default` is the first.", examples=["default"])]

SessionName = Annotated[
    str,
    AfterValidator(_well_formed_session),
    Field(max_length=17, description="A session, as acquire answered it.", examples=["s42"]),
]


def _valid_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected valid Unicode, without lone surrogates") from None
    return text


Text = Annotated[str, AfterValidator(_valid_unicode)]
"""Of any length, and no name: what JSON takes for a string and UTF-8 does not is refused. (With a `max_length` pydantic
refuses it by itself.)"""


def session_number(name: str) -> int:
    """The number of a well-formed session name."""
    match = _SESSION.fullmatch(name)
    assert match is not None, name
    return int(match[1])


def session_in_path(name: str) -> int:
    """The number of the session that an address names. Raises Refused (404): no session has such a name."""
    match = _SESSION.fullmatch(name)
    if match is None:
        raise Refused(404, "not-found", "there is no such session; a session reads like s42, as acquire answered it")
    return int(match[1])


def session_name(number: int) -> str:
    return f"s{number}"


def name_in_path(name: str) -> str:
    """A lock's or key's name in an address, as the cluster keeps it. Raises Refused (422)."""
    if "\N{REPLACEMENT CHARACTER}" in name:
        raise Refused(422, "invalid", "a name in an address is percent-encoded UTF-8")
    try:
        return commands.canonical_name(name)
    except ValueError as error:
        raise Refused(422, "invalid", str(error)) from None


# --- in -------------------------------------------------------------------------------------------


class StrictIn(BaseModel):
    """Not a ninja `Schema`: with `extra` forbidden that one validates what is nested twice on each level."""

    model_config = ConfigDict(extra="forbid", strict=True)


class AcquireIn(StrictIn):
    """Without `mode`, `also`, `reentrant`, `lock_delay_ms` and `acquisition`, a session has one hold of the name, and
    asking again answers it. With one of them each call is an acquisition of its own, but for those that name the same
    `acquisition`."""

    session: SessionName | None = Field(
        None, description="The session to hold the lock with. Without it one is opened for this call."
    )
    ttl_ms: int | None = Field(
        None,
        ge=TTL_MS_MIN,
        le=TTL_MS_MAX,
        description=f"The time to live of the session, without a keep-alive. {TTL_MS_DEFAULT} where a session is "
        "opened and none is given. One that differs from the named session's is refused.",
        examples=[TTL_MS_DEFAULT],
    )
    wait_ms: int = Field(
        0,
        ge=0,
        le=WAIT_MS_MAX,
        description="How long to wait in line. The session is kept alive meanwhile. Closing the connection leaves the "
        "line.",
    )
    mode: Mode = Field(
        lock_commands.EXCLUSIVE,
        description="Alone; together with others that share it; or with up to `limit` others that count it.",
    )
    limit: int | None = Field(
        None, ge=1, le=lock_commands.LIMIT_MAX, description="Of a counting lock: how many may hold it. Only there."
    )
    also: list[str] = Field(
        [], max_length=lock_commands.NAMES_MAX - 1, description="Other names to take with it, all or none."
    )
    reentrant: bool = Field(default=False, description="What the session holds of the name already is no hindrance.")
    lock_delay_ms: int = Field(
        0,
        ge=0,
        le=lock_commands.LOCK_DELAY_MS_MAX,
        description="For how long the name stays unavailable if the session expires while it holds it.",
    )
    refuse_deadlocks: bool = Field(
        default=True,
        description="Refuse to wait (409 `deadlock`) where sessions would wait for one another.",
    )
    acquisition: int | None = Field(
        None,
        ge=0,
        le=ACQUISITION_MAX,
        description="A number of your own for this hold of the session (which is named then), so that it can be asked "
        "for again: that answers the same hold, or goes on waiting in the same place. The place stays when the "
        "connection closes and when `wait_ms` is over: release it where you no longer want it.",
    )

    @model_validator(mode="after")
    def _acquisition_of_session(self) -> AcquireIn:
        if self.acquisition is not None and self.session is None:
            raise ValueError("expected a session with an acquisition: the one to ask again with")
        return self

    @model_validator(mode="after")
    def _limit_of_counting(self) -> AcquireIn:
        if (self.mode == lock_commands.COUNTING) != (self.limit is not None):
            raise ValueError("expected a limit with the mode counting, and with no other")
        return self

    @property
    def is_plain(self) -> bool:
        """The exclusive lock of one name, of which a session has one hold."""
        is_alone = self.mode == lock_commands.EXCLUSIVE and self.acquisition is None
        return is_alone and not (self.also or self.reentrant or self.lock_delay_ms)


class ReleaseIn(StrictIn):
    session: SessionName
    acquisition: int | None = Field(
        None, ge=0, le=ACQUISITION_MAX, description="As acquire answered it. Without: the first that the session has."
    )
    also: list[str] = Field([], max_length=lock_commands.NAMES_MAX - 1, description="Other names taken with it.")


class OpenSessionIn(StrictIn):
    ttl_ms: int = Field(
        TTL_MS_DEFAULT, ge=TTL_MS_MIN, le=TTL_MS_MAX, description="Its time to live without a keep-alive."
    )


class CrashIn(StrictIn):
    reason: str = Field("", max_length=2_000, description="Why, in your own words, for the audit.")


# --- out ------------------------------------------------------------------------------------------


class _Refusal(Schema):
    """What every refusal answers."""

    error: str = Field(description="A short code that programs can tell apart.", examples=["session-gone"])
    detail: str = Field(description="A sentence for people: what was expected and what came.")


class Problem(_Refusal):
    """What a refusal answers."""

    retry_after_ms: int | None = Field(
        None, description="Of `busy`, where it is known: after so long it may be asked again. Nothing was done."
    )


class HolderOut(Schema):
    """A session and an acquisition, and whose they are."""

    session: str = Field(examples=["s42"])
    principal: str = Field(description="Whose session it is.", examples=["user:admin"])
    acquisition: int = Field(description="Tells the attempts of one session apart.")

    @classmethod
    def of(cls, holder: commands.Holder) -> HolderOut:
        return cls(session=session_name(holder.session), principal=holder.principal, acquisition=holder.acquisition)


class Acquired(Schema):
    session: str = Field(description="Keep it alive, release with it, ask again with it.", examples=["s42"])
    token: int = Field(
        description="The fencing token: it only ever grows for this name. Hand it to what the lock guards."
    )
    name: str
    ttl_ms: int = Field(description="The time to live of the session.")
    expires_in_ms: int = Field(description="What is left of the lease at least, without a keep-alive.")
    principal: str = Field(description="Who holds the lock now: you.")
    acquisition: int = Field(description="Tells this hold from others of the session.")
    mode: Mode
    names: list[str] = Field(description="All that were taken.")
    sequencer: str = Field(description="`name:mode:token`, for a third party to check.")


class NotAcquired(_Refusal):
    name: str
    holder: HolderOut | None = Field(
        description="Who has it; null where it was let go just now, is kept back for a lock-delay, or cannot be asked."
    )
    token: int | None = Field(description="The holder's fencing token.")
    expires_in_ms: int | None = Field(description="What is left of the holder's lease.")


class Released(Schema):
    name: str
    session: str
    released: bool = True


class LockOut(Schema):
    name: str
    holder: HolderOut | None = Field(description="null when free.")
    token: int | None = Field(description="The holder's fencing token; null when free.")
    waiters: list[HolderOut] = Field(description="Who waits, the next in line first; 50 at the most.")
    waiting: int = Field(description="How many wait.")
    expires_in_ms: int | None = Field(description="What is left of the holder's lease; null when free.")
    ttl_ms: int | None = Field(description="The time to live of the holder's session; null when free.")

    @classmethod
    def of(cls, view: commands.LockView) -> LockOut:
        is_held = view.holder is not None
        return cls(
            name=view.name,
            holder=HolderOut.of(view.holder) if view.holder is not None else None,
            token=view.token if is_held else None,
            waiters=[HolderOut.of(waiter) for waiter in view.waiters],
            waiting=view.waiting,
            expires_in_ms=view.expires_in_ms if is_held else None,
            ttl_ms=view.ttl_ms if is_held else None,
        )


class LocksOut(Schema):
    locks: list[LockOut] = Field(
        description="Locks that are held, and names that a lock-delay keeps back (`holder` null), by name."
    )
    held: int = Field(description="How many of both there are in all.")
    waiting: int = Field(description="How many waiters there are in all.")
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")


class KeptAliveOut(Schema):
    session: str
    ttl_ms: int
    expires_in_ms: int = Field(description="What is left of the lease at least, counted from when this process asked.")


class SessionOut(Schema):
    session: str
    principal: str
    ttl_ms: int
    expires_in_ms: int
    locks: list[str] = Field(description="Names of the locks that it holds.")


class ClosedOut(Schema):
    session: str
    closed: bool = True


class KeyWritten(Schema):
    key: str
    revision: int = Field(description="The log index that wrote it.")
    existed: bool = Field(description="Whether there was such a key before.")


class KeyDeleted(Schema):
    key: str
    deleted: bool = Field(description="Whether there was anything to delete.")
    revision: int = Field(description="The log index that deleted it.")


class ReplicaOut(Schema):
    node: str = Field(examples=["node2"])
    role: str = Field(
        description="leader, follower, candidate, pre-candidate, learner, witness, waiting or unreachable. "
        "Of an unreachable one nothing else is known: numbers are 0, the process is null."
    )
    term: int
    last_index: int
    commit_index: int
    applied_index: int
    pid: int | None
    replica_id: str | None = Field(
        description="The replica's identity in hex; null where it has none or is unreachable."
    )
    vote: str | None = Field(description="Whom it voted for in its term; null for nobody.")
    leader: str | None = Field(description="Who leads, as this replica sees it.")
    digest: str | None = Field(description="A hash of its state: equal on replicas that have applied the same index.")
    waiting_for: str | None = Field(description="What a replica in role waiting waits for.")
    drops: dict[str, int] = Field(description="Messages that its node dropped, by reason.")


class StatusOut(Schema):
    cluster: str
    cluster_id: str | None = Field(description="The cluster's identity in hex; null where no replica answers.")
    leader: str | None = Field(description="The node that says it leads, in the highest term; null where none does.")
    term: int = Field(description="The highest term that any replica knows.")
    voters: list[str]
    faults_allowed: bool = Field(description="Whether a node may be crashed over this API.")
    replicas: list[ReplicaOut]


class RebuiltOut(Schema):
    generation: int = Field(
        description="Of the wanted membership, in the log and in the database; 0: nothing is wanted."
    )


class CrashedOut(Schema):
    node: str
    crashed: bool = True
