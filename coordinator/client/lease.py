"""What holds of a lock that was taken, for both shells: its token, and whether it can still be proven held."""

from __future__ import annotations

from coordinator.client.errors import Broken, LeaseLost
from coordinator.client.flows import Clock, Grant
from coordinator.client.session import process
from coordinator.statemachine.lock_commands import Break


class LeaseState:
    """Reads only; safe from any thread."""

    def __init__(self, grant: Grant, clock: Clock) -> None:
        self.grant = grant
        self._process = process()
        self.released = False
        self.may_be_given = False
        """What gives it to another was asked for, and not refused: done or not, it can not be proven held."""
        self._clock = clock

    @property
    def is_own(self) -> bool:
        """Did this process take it, and not one that it is a fork of?"""
        return self._process == process()

    @property
    def held(self) -> bool:
        is_mine = not self.released and not self.may_be_given and self.is_own
        return is_mine and self.grant.session.valid(self._clock()) and self.broken is None

    @property
    def broken(self) -> Break | None:
        """By which it was taken away by force, or one of its names, as far as this client has been told."""
        session, name, acquisition, token, names = self.grant
        for one in names or (name,):
            broken = session.broken(one, acquisition, token)
            if broken is not None:
                return broken
        return None

    @property
    def expires_in(self) -> float:
        """Seconds for which the lease can be proven held if no leader confirms it again; 0.0 where it can not."""
        if self.released or self.may_be_given or not self.is_own or self.grant.session.gone or self.broken is not None:
            return 0.0
        return max(0, self.grant.session.valid_until_us - self._clock()) / 1e6

    def check(self) -> None:
        """Raises LeaseLost unless the lease can be proven held at this moment; as Broken where this client has been
        told that it was taken away by force."""
        name = self.grant.name
        if self.released:
            raise LeaseLost(f"lock {name!r} was released")
        if self.may_be_given:
            raise LeaseLost(f"lock {name!r} was handed over, or may have been: no answer said that it was not")
        if not self.is_own:
            raise LeaseLost(
                f"lock {name!r} belongs to process {self._process[0]}, which took it, and not to a fork of it"
            )
        if self.grant.session.gone:
            raise LeaseLost(f"lock {name!r}: the session is gone, and another may hold it now")
        broken = self.broken
        if broken is not None:
            raise Broken(broken)
        if not self.grant.session.valid(self._clock()):
            raise LeaseLost(f"lock {name!r}: no leader has confirmed the lease for its time to live")
