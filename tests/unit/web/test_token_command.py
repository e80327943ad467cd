"""`manage.py token NAME`: two lines, a principal in the log, an entry in the audit, and nothing kept."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from coordinator import wire
from coordinator.management.commands import token as command
from coordinator.models import AuditEntry
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeClient, FakeCluster, FakeSyncClient

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture(autouse=True)
def sync_client(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeSyncClient(FakeClient(cluster))
    monkeypatch.setattr(command, "make_client", lambda name: client)


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("token", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_it_prints_exactly_two_lines(settings: Any, cluster: FakeCluster) -> None:
    out, err = run("worker")
    url, token = out.splitlines()
    assert out.count("\n") == 2
    assert err == ""
    assert url == f"CONCLAVE_URL={settings.DATA.client_redis_url(settings.CONCLAVE)}"
    parsed = wire.Token.parse(token.removeprefix("CONCLAVE_TOKEN="))
    assert parsed.realm == settings.DATA.realm()
    assert cluster.machine.key_of(parsed.token_id) == ("worker", parsed.key)
    principal = cluster.machine.principals["worker"]
    assert set(principal.rights) == {"read", "write", "lock"}
    assert principal.prefixes == ()
    assert not principal.act_for


def test_options_narrow_the_rights(cluster: FakeCluster) -> None:
    run("narrow", "--rights", "lock, read", "--prefix", "billing/", "--prefix", "/search/")
    principal = cluster.machine.principals["narrow"]
    assert set(principal.rights) == {"read", "lock"}
    assert principal.prefixes == ("billing/", "search/")


def test_the_same_name_with_the_same_rights_gets_one_more_token(cluster: FakeCluster) -> None:
    first, _ = run("worker")
    second, _ = run("worker", "--rights", "lock,write,read")
    assert first != second
    assert len(cluster.machine.principals["worker"].tokens) == 2
    assert [entry.details["new_principal"] for entry in AuditEntry.objects.all()] == [False, True], "the newest first"


def test_the_same_name_with_other_rights_is_refused(cluster: FakeCluster) -> None:
    run("worker")
    for options in (["--rights", "read"], ["--prefix", "a/"]):
        with pytest.raises(CommandError, match="is there already, with other rights"):
            run("worker", *options)
    assert len(cluster.machine.principals["worker"].tokens) == 1


@pytest.mark.parametrize("name", ["web", "user:admin", "user:x", "", "-x", "a b", "é", "a" * 151, "a\nb"])
def test_names_that_are_the_web_tiers_or_none_are_refused(cluster: FakeCluster, name: str) -> None:
    with pytest.raises(CommandError, match="expected 1 to 150 characters"):
        run("--", name)


@pytest.mark.parametrize("rights", ["", "everything", "read,fly", ","])
def test_rights_that_there_are_not_are_refused(rights: str) -> None:
    with pytest.raises(CommandError, match="expected some of read, write, lock, administer"):
        run("worker", "--rights", rights)


def test_revoking_removes_the_principal_with_its_tokens(cluster: FakeCluster) -> None:
    run("worker")
    out, err = run("worker", "--revoke", "--reason", "left the company")
    assert out == ""
    assert "Removed principal 'worker'" in err
    assert "worker" not in cluster.machine.principals
    assert list(cluster.machine.tokens.values()) == ["web"]
    with pytest.raises(CommandError, match="there is no principal 'worker'"):
        run("worker", "--revoke")


def test_revoking_does_not_say_that_what_it_held_is_free_already(cluster: FakeCluster) -> None:
    """Nobody can keep its sessions alive any more; what they hold they hold until their leases have run out."""
    run("worker")
    opened = cluster.apply("worker", "", commands.Command(0, 0, 0, commands.OpenSession(60_000, b"n" * 16)))
    assert isinstance(opened, commands.SessionOpened)
    _, err = run("worker", "--revoke")
    assert opened.session in cluster.machine.sessions
    assert "what it holds is free when its leases have run out" in err
    assert "ended" not in err


def test_it_lands_in_the_audit_without_the_secret(cluster: FakeCluster) -> None:
    out, _ = run("worker", "--reason", "new deployment")
    run("worker", "--revoke")
    removed, created = AuditEntry.objects.all()
    assert (created.action, created.actor, created.target) == ("token.created", "operator (shell)", "default/worker")
    assert created.principal == removed.principal == "web", "as whom the log was told"
    assert created.reason == "new deployment"
    assert removed.action == "principal.removed"
    token = wire.Token.parse(out.splitlines()[1].removeprefix("CONCLAVE_TOKEN="))
    assert created.details["token_id"] == token.token_id
    assert token.secret not in str(created.details)


def test_without_a_leader_it_says_so_and_prints_no_token(cluster: FakeCluster) -> None:
    cluster.has_leader = False
    out = io.StringIO()
    with pytest.raises(CommandError, match="no leader"):
        call_command("token", "worker", stdout=out)
    assert out.getvalue() == ""


def test_bytes_of_a_shell_that_are_no_text_are_in_the_audit() -> None:
    out, _ = run("worker", "--reason", "bad \udcff byte")
    assert "CONCLAVE_TOKEN=" in out
    assert AuditEntry.objects.get().reason == r"bad \udcff byte"


def test_in_which_cluster_a_token_is_good_can_be_said(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> None:
    asked: list[str] = []
    client = FakeSyncClient(FakeClient(cluster))
    monkeypatch.setattr(command, "make_client", lambda name: asked.append(name) or client)  # type: ignore[func-returns-value]
    run("worker", "--cluster", "jobs")
    assert asked == ["jobs"]
    assert AuditEntry.objects.get().target == "jobs/worker"
    assert "--cluster" in command.Command().create_parser("manage.py", "token").format_help()
