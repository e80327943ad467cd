"""The sessions of people who signed in: Django's own, in the database."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """Asks the database for no key that Django never draws: a stranger's cookie may say anything, and PostgreSQL
    refuses a text with a NUL as an error, which would be one of ours."""

    def _validate_session_key(self, key: Any) -> bool:
        known: bool = super()._validate_session_key(key) and key.isascii() and key.isalnum()  # type: ignore[misc]
        return known
