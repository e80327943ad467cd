"""Of sign-ins that have run out nothing is kept."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.utils import timezone

from coordinator import accounts
from coordinator.sign_ins import SessionStore
from tests.unit.web.helpers import until

pytestmark = pytest.mark.usefixtures("transactional_db")


def _sign_in(key: str, days: int) -> None:
    Session.objects.create(session_key=key, session_data="", expire_date=timezone.now() + timedelta(days=days))


def _keys() -> list[str]:
    return sorted(Session.objects.values_list("session_key", flat=True))


async def test_rows_of_sign_ins_that_have_run_out_are_deleted_also_where_the_database_failed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each stayed for ever: a script that signs in each minute left half a million a year."""
    for key, days in (("old", -1), ("older", -400), ("lives", 1)):
        await sync_to_async(_sign_in)(key, days)
    times: list[Any] = []
    really = accounts._delete_expired

    def delete() -> None:
        times.append(None)
        if len(times) == 1:
            raise DatabaseError("locked")
        really()

    monkeypatch.setattr(accounts, "_delete_expired", delete)
    monkeypatch.setattr(accounts, "FORGET_SIGN_INS_S", 0.01)
    forgetting = asyncio.ensure_future(accounts.forget_expired_sign_ins())
    await until(lambda: len(times) > 2)
    forgetting.cancel()
    await asyncio.gather(forgetting, return_exceptions=True)
    assert await sync_to_async(_keys)() == ["lives"]


def test_a_key_that_is_never_drawn_is_not_asked_for() -> None:
    drawn = SessionStore()
    drawn.create()
    assert SessionStore(drawn.session_key).session_key == drawn.session_key
    for said in ("\0aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaa\udcff", "a b c d e f g h i"):
        assert SessionStore(said).session_key is None
