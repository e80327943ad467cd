"""The clients' user on a Redis that we do not run, for as long as a node listens there: made before each connection of
the node, and made again where it is gone since. A node's own connection outlives that (`ACL LOAD`, `ACL DELUSER`, a
look before the connection that came to nothing while the connection itself was made), and no client's does.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from coordinator.embedded_redis import client_user_problem, ensure_client_user

LOOK_S: Final = 30.0
"""For so long at the most no client can connect behind the loss of their user."""

logger = logging.getLogger(__name__)


class ClientsUser:
    """`greet` is called by the node's loop, which waits for it; what is looked for in between, by a thread."""

    def __init__(self, redis_url: str, realm: str, password: str) -> None:
        self._user = (redis_url, realm, password)
        self._problem = ""
        """What the operator was told to do, as we may not."""
        self._looking: threading.Thread | None = None

    def greet(self) -> None:
        """Make or renew it, and say once where somebody else has to. Never raises."""
        if self._problem:  # That is enough: the loop waits for each look.
            ensure_client_user(*self._user)
            return
        self._problem = client_user_problem(*self._user)
        if self._problem:
            logger.warning("%s", self._problem)
        elif self._looking is None:
            self._looking = threading.Thread(target=self._look_on, name="conclave-clients-user", daemon=True)
            self._looking.start()

    def look(self) -> bool:
        """Make it again where it is gone. False where we may not, so that nobody need look. Never raises."""
        made = ensure_client_user(*self._user, only_missing=True)
        if made == "set":
            logger.warning("the clients' user was gone from Redis, and is made again")
        return made not in {"denied", "unsupported"}

    def _look_on(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_S) and self.look():
            pass
