"""The shapes of holds in all modes, sequencers, forced releases and elections."""

from __future__ import annotations

from typing import Literal

from ninja import Schema
from pydantic import Field, model_validator

from coordinator.api.file_schemas import ValueIn, text_of
from coordinator.api.schemas import ACQUISITION_MAX, HolderOut, SessionName, StrictIn, session_name
from coordinator.client.events import Heard
from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.lock_commands import Mode


class GrantOut(Schema):
    holder: HolderOut
    token: int
    names: list[str] = Field(description="All that were taken together.")


class WaiterOut(Schema):
    holder: HolderOut
    mode: Mode
    names: list[str]


class HoldOut(Schema):
    name: str
    mode: Mode = Field(description="How it is held, or was last.")
    limit: int = Field(description="Of a counting lock: how many may hold it.")
    token: int = Field(description="Of the last grant; 0: none that is remembered.")
    holders: list[GrantOut] = Field(description="The first 50.")
    holding: int
    waiters: list[WaiterOut] = Field(description="The first 50, the next in line first.")
    waiting: int
    lock_delay_ms: int = Field(description="A holder died, and the name stays unavailable for so long; 0: no.")
    upgrading: HolderOut | None = Field(description="The holder that waits to hold it alone.")

    @classmethod
    def of(cls, state: lock_commands.LockState) -> HoldOut:
        return cls(
            name=state.name,
            mode=state.mode,
            limit=state.limit,
            token=state.token,
            holders=[
                GrantOut(holder=HolderOut.of(grant.holder), token=grant.token, names=list(grant.names))
                for grant in state.holders
            ],
            holding=state.holding,
            waiters=[
                WaiterOut(holder=HolderOut.of(waiter.holder), mode=waiter.mode, names=list(waiter.names))
                for waiter in state.waiters
            ],
            waiting=state.waiting,
            lock_delay_ms=state.delay_ms,
            upgrading=None if state.upgrading is None else HolderOut.of(state.upgrading),
        )


class ChangeModeIn(StrictIn):
    session: SessionName
    acquisition: int = Field(ge=0, le=ACQUISITION_MAX, description="As acquire answered it.")
    mode: Literal["exclusive", "shared"]
    wait_ms: int = Field(
        0,
        ge=0,
        le=commands.WAIT_MS_MAX,
        description="To exclusive: how long to wait until the others have let go. Nobody is let in meanwhile, and the "
        "session is kept alive. Closing the connection gives it up.",
    )

    @model_validator(mode="after")
    def _waits_to_be_alone(self) -> ChangeModeIn:
        if self.wait_ms and self.mode != lock_commands.EXCLUSIVE:
            raise ValueError("expected wait_ms with the mode exclusive; nobody waits to share what they hold")
        return self


class ModeChanged(Schema):
    name: str
    mode: Mode
    token: int
    sequencer: str


class HandOverIn(StrictIn):
    session: SessionName
    acquisition: int = Field(ge=0, le=ACQUISITION_MAX, description="As acquire answered it.")
    to_session: SessionName
    to_acquisition: int = Field(ge=0, le=ACQUISITION_MAX, description="A number of its own, or that of a waiter.")


class HandedOver(Schema):
    name: str
    to_session: str
    to_acquisition: int


class ForceReleaseIn(StrictIn):
    name: str
    reason: str = Field(
        min_length=1, max_length=lock_commands.REASON_BYTES_MAX, description="Kept, and told the holder."
    )
    session: SessionName | None = Field(None, description="Only what this session holds, or left a lock-delay of.")


class ForcedOut(Schema):
    name: str
    released: bool = Field(description="Whether anybody held it, or a lock-delay kept it.")


class BreakOut(Schema):
    number: int
    revision: int = Field(description="The log index of it.")
    name: str
    holder: HolderOut
    token: int
    by: str = Field(description="The principal that did it.")
    reason: str

    @classmethod
    def of(cls, broken: lock_commands.Break) -> BreakOut:
        return cls(
            number=broken.number,
            revision=broken.index,
            name=broken.name,
            holder=HolderOut.of(broken.holder),
            token=broken.token,
            by=broken.principal,
            reason=broken.reason,
        )


class BreaksOut(Schema):
    breaks: list[BreakOut] = Field(description="The oldest first.")


class SequencerOut(Schema):
    sequencer: str
    valid: bool = Field(description="Whether the name is held by that very grant.")


class ProclaimIn(ValueIn):
    token: int = Field(ge=1, description="The fencing token of the leadership.")


class ProclaimedOut(Schema):
    revision: int


class LeaderOut(Schema):
    name: str
    session: str
    principal: str
    token: int = Field(description="Grows with every leadership.")
    value: str | None = Field(description="What it proclaimed, in base64; null: nothing yet.")

    @classmethod
    def of(cls, name: str, grant: lock_commands.Grant, value: bytes | None) -> LeaderOut:
        holder = grant.holder
        session = session_name(holder.session)
        return cls(name=name, session=session, principal=holder.principal, token=grant.token, value=text_of(value))


# --- events ---------------------------------------------------------------------------------------


class LockEventOut(Schema):
    revision: int
    name: str
    kind: lock_commands.EventKind = Field(
        description="`acquired`: `holder` came to hold the name. `conflict`: `holder` asked for what others hold. Its "
        "hold ended: `released`, by itself; `handed-over`; `expired`, with its session; `forced`, by an operator."
    )
    holder: HolderOut
    mode: Mode
    token: int = Field(
        description="Of the grant, also of one that ended; of a conflict, the last of those that hold the name."
    )
    waits: bool = Field(description="Of a conflict: it is in line, or waits for its upgrade; else it was refused.")


class FailOverOut(Schema):
    leader: str = Field(description="The node that leads.")
    term: int


class LockEventsOut(Schema):
    fail_over: FailOverOut | None = Field(
        description="Another leader than the one of the `term` that was given took over: what came before this page "
        "was told by leaders before it."
    )
    events: list[LockEventOut] = Field(description="In order. None: nothing came about so far.")
    since: int = Field(
        description="Go on from here, with `skip`: nothing that was asked for lies before that is not told."
    )
    skip: int
    term: int = Field(description="Whose word this is: give it to be told when another leader took over.")

    @classmethod
    def of(cls, heard: Heard, term: int) -> LockEventsOut:
        """`term`: of whom the caller heard last; 0: of nobody."""
        page = heard.page
        fail_over = FailOverOut(leader=heard.leader, term=heard.term) if term and heard.term != term else None
        events = [
            LockEventOut(
                revision=event.revision,
                name=event.name,
                kind=event.kind,
                holder=HolderOut.of(event.holder),
                mode=event.mode,
                token=event.token,
                waits=event.waits,
            )
            for event in page.events
        ]
        return cls(fail_over=fail_over, events=events, since=page.since, skip=page.skip, term=heard.term)
