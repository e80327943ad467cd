"""The web tier over a cluster in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient as DjangoAsyncClient
from django.test import Client as DjangoClient

from coordinator import access, wire
from coordinator.api import owning
from coordinator.statemachine import commands, permissions
from tests.unit.web.fake_cluster import FakeClient, FakeCluster
from tests.unit.web.helpers import PASSWORD, Bearer, new_token

OF_ITSELF: Final = frozenset(
    (permissions.GetTokenAccess, commands.GetToken, commands.GetPrincipal, commands.SetPrincipal, commands.GetLock)
)
"""What the web process asks for nobody: who a token speaks for, that a person is known to the log, and who has the lock
that a caller did not get."""


@pytest.fixture(autouse=True, scope="session")
def static_root() -> None:
    django_settings.STATIC_ROOT.mkdir(exist_ok=True)


@pytest.fixture
def cluster(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    fake = FakeCluster(settings.DATA.web_token())

    def make_reader(url: str, token: str, *, cluster: str, timeout: float) -> FakeClient:
        """A client that a token's owner would open: nodes answer it where the log knows the token."""
        parsed = wire.Token.parse(token)
        known = fake.machine.key_of(parsed.token_id)
        if known is None or known[1] != parsed.key:
            fake_without_answers = FakeCluster(settings.DATA.web_token())
            fake_without_answers.silent_nodes = set(fake_without_answers.nodes)
            return FakeClient(fake_without_answers)
        return FakeClient(fake, known[0])

    monkeypatch.setattr(access, "make_client", lambda cluster: FakeClient(fake, serves=True))
    monkeypatch.setattr(access, "AsyncClient", make_reader)
    forget_everything()
    yield fake
    forget_everything()
    more = fake.by_its_own_right - OF_ITSELF
    assert not more, "whatever a caller asks is asked for that caller, and by no right of the web process"


def forget_everything() -> None:
    access._clients.clear()
    access._ensured.clear()
    access._tokens.clear()
    owning._sessions.clear()
    access._directory = access._Directory()


@pytest.fixture
def admin(transactional_db: None) -> User:
    return User.objects.create_superuser("admin", password=PASSWORD)


@pytest.fixture
def reader(transactional_db: None) -> User:
    """May read, and nothing else."""
    user = User.objects.create_user("reader", password=PASSWORD)
    user.user_permissions.add(Permission.objects.get(codename="read_state"))
    return user


@pytest.fixture
def as_admin(admin: User, cluster: FakeCluster) -> DjangoAsyncClient:
    client = DjangoAsyncClient()
    client.force_login(admin)
    return client


@pytest.fixture
def as_reader(reader: User, cluster: FakeCluster) -> DjangoAsyncClient:
    client = DjangoAsyncClient()
    client.force_login(reader)
    return client


@pytest.fixture
def pages(admin: User, cluster: FakeCluster) -> DjangoClient:
    client = DjangoClient()
    client.force_login(admin)
    return client


@pytest.fixture
def worker(cluster: FakeCluster) -> Bearer:
    return Bearer(str(new_token(cluster, "worker")))


@pytest.fixture
def other(cluster: FakeCluster) -> Bearer:
    return Bearer(str(new_token(cluster, "other")))
