"""The names of the Redis channels, and of what they are named after: nodes and installations."""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

NODE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
REALM: Final = re.compile(r"[0-9a-f]{8}")


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
