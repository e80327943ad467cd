"""A client's token, and the key that is derived from it one way: what signs its requests, and the answers to them."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple


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
