"""One HTTP call's attempt to hold alone what its session shares: ask, wait until the others have let go, and share it
again when that fails or the caller goes away."""

from __future__ import annotations

from typing import Any

from coordinator.api.attempt import Attempt
from coordinator.api.errors import Refused
from coordinator.api.schemas import session_name
from coordinator.client import AsyncClient, errors
from coordinator.statemachine import commands, lock_commands


def not_held(name: str, session: int, acquisition: int) -> Refused:
    detail = f"acquisition {acquisition} of session {session_name(session)} does not hold lock {name!r}"
    return Refused(409, "not-held", detail)


class Upgrade(Attempt):
    """Use as an Attempt, with a session that is named."""

    def __init__(
        self, client: AsyncClient, cluster: str, principal: str, name: str, acquisition: int, act_for: str
    ) -> None:
        super().__init__(client, cluster, principal, name, act_for=act_for)
        self._acquisition = acquisition

    async def _ask(self, wants_to_wait: bool) -> commands.Result:
        op = lock_commands.ChangeMode(
            self._name, self._acquisition, lock_commands.EXCLUSIVE, wants_to_wait, self._session
        )
        result: commands.Result = errors.refuse(await self._client.command(op, act_for=self._act_for))
        if isinstance(result, commands.NotHeld):
            raise not_held(self._name, self._session, self._acquisition)
        return result

    async def _granted(self, deadline: float) -> int | None:
        while await super()._granted(deadline) is not None:
            # The push may have been that of the shared grant, come late (history 8): what holds is asked for.
            query = commands.AwaitGrant(self._name, self._acquisition, self._session)
            now: Any = await self._client.query(query, act_for=self._act_for)
            if isinstance(now, commands.Granted):
                return now.token
            if isinstance(now, commands.NotHeld):
                break
        return None

    async def _not_acquired(self, held: commands.Held | None = None) -> Refused:
        return Refused(
            409,
            "not-acquired",
            f"lock {self._name!r} is shared with others still, and so is what this session holds of it",
            {"name": self._name},
        )

    def _undoing(self) -> commands.ClientOp:
        return lock_commands.ChangeMode(
            self._name, self._acquisition, lock_commands.SHARED, wait=False, owner=self._session
        )
