"""`manage.py token NAME`: a credential for a program. Prints two lines that a shell can take in, and keeps neither."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from coordinator import audit, wire
from coordinator.client import Client, errors
from coordinator.embedded_redis import client_user_problem
from coordinator.models import AuditEntry
from coordinator.statemachine import commands

RIGHTS_DEFAULT = (commands.READ, commands.WRITE, commands.LOCK)
TIMEOUT_S = 10.0
RESERVED_NAME = "web"


def a_name(text: str) -> str:
    if text == RESERVED_NAME or text.startswith("user:") or not commands.PRINCIPAL_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            "expected 1 to 150 characters that begin with a letter or a digit and hold those and . _ @ + - only; "
            f"not 'web', and not beginning with 'user:', which are the web tier's own; came {text!r}"
        )
    return text


def some_rights(text: str) -> tuple[str, ...]:
    given = [part.strip() for part in text.split(",") if part.strip()]
    if not given or any(right not in commands.RIGHTS for right in given):
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(commands.RIGHTS)}, separated by commas; came {text!r}"
        )
    return tuple(right for right in commands.RIGHTS if right in given)


def a_prefix(text: str) -> str:
    try:
        return commands.canonical_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; came {text!r}") from None


class Command(BaseCommand):
    help = (
        "Creates a principal NAME in the cluster's log, with a token, and prints CONCLAVE_URL and CONCLAVE_TOKEN for "
        "it. For a principal that is there already, with the same rights, one more token is made. Nobody keeps the "
        "token: the log keeps what verifies it."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "name", type=a_name, metavar="NAME", help="whom the token speaks for, such as billing-worker"
        )
        parser.add_argument(
            "--rights",
            type=some_rights,
            default=RIGHTS_DEFAULT,
            help=f"some of {', '.join(commands.RIGHTS)}, separated by commas (default: {','.join(RIGHTS_DEFAULT)})",
        )
        parser.add_argument(
            "--prefix",
            type=a_prefix,
            action="append",
            default=[],
            metavar="P",
            dest="prefixes",
            help="narrow the rights to names that begin with P; may be given several times",
        )
        parser.add_argument(
            "--revoke",
            action="store_true",
            help="remove the principal with all its tokens; its locks are free when their leases have run out",
        )
        parser.add_argument("--reason", default="", help="why, for the audit")
        parser.add_argument(
            "--cluster", default="default", help="in which the token is good, and in no other (default: default)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with make_client(options["cluster"]) as client:
                if options["revoke"]:
                    self._revoke(client, options)
                else:
                    self._create(client, options)
        except errors.ConclaveError as error:
            raise CommandError(f"{error}") from error

    # --- create -----------------------------------------------------------------------------------

    def _create(self, client: Client, options: dict[str, Any]) -> None:
        name, rights, prefixes = options["name"], options["rights"], tuple(sorted(set(options["prefixes"])))
        is_new = self._check_or_create(client, name, rights, prefixes)
        token = wire.Token.new(settings.DATA.realm())
        client.command(commands.AddToken(token.token_id, name, token.key))
        self._audit(
            options,
            audit.TOKEN_CREATED,
            {"token_id": token.token_id, "rights": list(rights), "prefixes": list(prefixes), "new_principal": is_new},
        )
        self.stdout.write(f"CONCLAVE_URL={settings.DATA.client_redis_url(settings.CONCLAVE)}")
        self.stdout.write(f"CONCLAVE_TOKEN={token}")
        own = settings.CONCLAVE.external_redis
        if own and (problem := client_user_problem(own, settings.DATA.realm(), settings.DATA.client_password())):
            self.stderr.write(problem)

    def _check_or_create(self, client: Client, name: str, rights: tuple[str, ...], prefixes: tuple[str, ...]) -> bool:
        try:
            view = client.query(commands.GetPrincipal(name))
        except errors.NotFound:
            client.command(commands.SetPrincipal(name, rights, prefixes))
            return True
        assert isinstance(view, commands.PrincipalView), view
        if set(view.rights) != set(rights) or set(view.prefixes) != set(prefixes):
            raise CommandError(
                f"principal {name!r} is there already, with other rights: {_words(view.rights, view.prefixes)}; asked "
                f"for were {_words(rights, prefixes)}. Ask for the same, take another name, or remove it first: "
                f"token {name} --revoke"
            )
        return False

    # --- revoke -----------------------------------------------------------------------------------

    def _revoke(self, client: Client, options: dict[str, Any]) -> None:
        name = options["name"]
        done = client.command(commands.RemovePrincipal(name))
        if not (isinstance(done, commands.Done) and done.existed):
            raise CommandError(f"there is no principal {name!r}; nothing was removed")
        self._audit(options, audit.PRINCIPAL_REMOVED, {})
        self.stderr.write(
            f"Removed principal {name!r} with all its tokens; what it holds is free when its leases have run out. "
            "To have a lock at once: POST /forced-releases, or python -m coordinator.client locks break"
        )

    def _audit(self, options: dict[str, Any], action: str, details: dict[str, Any]) -> None:
        """The log is changed already: a database that fails now must not hide the token that was made."""
        try:
            audit.record(
                actor=audit.OPERATOR,
                principal=RESERVED_NAME,
                action=action,
                target=f"{options['cluster']}/{options['name']}",
                reason=options["reason"],
                details=details,
                outcome=AuditEntry.Outcome.DONE,
            )
        except DatabaseError as error:
            self.stderr.write(f"This could not be written to the audit: {error}")


def _words(rights: Any, prefixes: Any) -> str:
    words = ", ".join(sorted(rights)) or "none"
    return f"{words} on names that begin with {', '.join(sorted(prefixes))}" if prefixes else f"{words} on everything"


def make_client(cluster: str) -> Client:
    """A client as principal `web`, which may edit principals."""
    return Client(
        settings.DATA.mailbox_redis_url(settings.CONCLAVE),
        str(settings.DATA.web_token()),
        cluster=cluster,
        timeout=TIMEOUT_S,
    )
