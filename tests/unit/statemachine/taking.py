"""A few sessions that take locks of all modes, let them go and look who has them."""

from __future__ import annotations

from coordinator.statemachine import commands
from coordinator.statemachine.lock_commands import Acquire, GetLockState, Release
from tests.unit.statemachine.asking import Asking


class Locking(Asking):
    def __init__(self, sessions: int = 4, level: int = commands.LEVEL) -> None:
        super().__init__(level)
        self.sessions = [self.open() for _ in range(sessions)]

    def take(self, who, *names, **fields):
        fields = {"acquisition": 1, **fields}
        return self.ask(self.sessions[who], Acquire(names or ("l",), **fields))

    def drop(self, who, *names, acquisition=1):
        return self.ask(self.sessions[who], Release(names or ("l",), acquisition))

    def state(self, name="l"):
        return self.query(GetLockState(name))

    def holding(self, name="l"):
        return [self.sessions.index(grant.holder.session) for grant in self.state(name).holders]

    def waiting(self, name="l"):
        return [self.sessions.index(waiter.holder.session) for waiter in self.state(name).waiters]
