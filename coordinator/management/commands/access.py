"""`manage.py access …`: who may do what in a cluster and how much of it: permissions, roles, narrow tokens, quotas."""

from __future__ import annotations

import argparse
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from coordinator import audit, permitting
from coordinator.client import Client, errors
from coordinator.management.commands.token import RESERVED_NAME, make_client
from coordinator.statemachine import commands
from coordinator.statemachine.permissions import (
    CLUSTER,
    EACH,
    GetAccess,
    GetQuota,
    ListPermissions,
    ListRoles,
    QuotaView,
)

_PERMISSION: Final = "PREFIX:RIGHTS, as in build/:read,write; :read is read everything"
_WHO: Final = f"a principal; {EACH!r}: each that has no quota of its own; 'cluster': the cluster as a whole"


class Command(BaseCommand):
    help = "Says and changes who may do what in a cluster, and how much of it. What is said here is held by its log."
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")

        def kind(name: str, text: str) -> argparse.ArgumentParser:
            made: argparse.ArgumentParser = kinds.add_parser(name, help=text)
            made.add_argument("--cluster", default="default", help="which (default: default)")
            made.add_argument("--reason", default="", help="why, for the audit")
            return made

        kind("list", "principals, roles, permissions and quotas")
        permit = kind("permit", "what a principal or a role may do on names that begin with a prefix")
        permit.add_argument("holder", choices=("principal", "role"))
        permit.add_argument("name")
        permit.add_argument("prefix", help="'' is everything")
        permit.add_argument("rights", help=f"some of {', '.join(commands.RIGHTS)}, separated by commas; '': none")
        role = kind("role", "make a role, or replace all that it may do")
        role.add_argument("name")
        role.add_argument("permissions", nargs="*", help=_PERMISSION)
        kind("remove-role", "take a role away from all that have it").add_argument("name")
        roles = kind("roles", "the roles that a principal has, instead of those it had")
        roles.add_argument("name", metavar="principal")
        roles.add_argument("roles", nargs="*")
        narrow = kind("narrow", "what a token may do of what its principal may")
        narrow.add_argument("name", metavar="token_id", help="the third part of a token")
        narrow.add_argument("permissions", nargs="*", help=f"{_PERMISSION}; none: nothing")
        kind("widen", "let a token do all that its principal may").add_argument("name", metavar="token_id")
        quota = kind("quota", "how much there may be; what is left out has no quota")
        quota.add_argument("name", metavar="who", help=_WHO)
        for what in permitting.AMOUNTS:
            quota.add_argument(f"--{what.replace('_', '-')}", default="", metavar="N")
        kind("no-quota", "take a quota away").add_argument("name", metavar="who", help=_WHO)

    def handle(self, *args: Any, **options: Any) -> None:
        fields = {key: " ".join(value) if isinstance(value, list) else str(value) for key, value in options.items()}
        if options["kind"] in ("quota", "no-quota") and fields["name"] == "cluster":
            fields["name"] = CLUSTER
        try:
            change = None if options["kind"] == "list" else permitting.change_of(options["kind"], fields)
        except ValueError as error:
            raise CommandError(str(error)) from None
        try:
            with make_client(options["cluster"]) as client:
                if change is None:
                    self._list(client)
                else:
                    client.command(change)
        except errors.ConclaveError as error:
            raise CommandError(f"{error}") from error
        if change is not None:
            self._audit(options, change)

    def _audit(self, options: dict[str, Any], change: permitting.Change) -> None:
        """The log is changed already: a database that fails now is said, and changes nothing of that."""
        try:
            audit.record(
                actor=audit.OPERATOR,
                principal=RESERVED_NAME,
                action=audit.ACCESS_CHANGED,
                target=f"{options['cluster']}/{options['name']}",
                reason=options["reason"],
                details={"change": repr(change)},
            )
        except DatabaseError as error:
            self.stderr.write(f"This could not be written to the audit: {error}")

    # --- list -------------------------------------------------------------------------------------

    def _list(self, client: Client) -> None:
        self._say_quota("the cluster", client.query(GetQuota(CLUSTER)))
        self._say_quota("each principal without one of its own", client.query(GetQuota(EACH)))
        after = ""
        while page := client.query(commands.ListPrincipals(after)).principals:
            for view in page:
                self._principal(client, view)
            after = page[-1].name
        after = ""
        while roles := client.query(ListRoles(after)).roles:
            for role in roles:
                self.stdout.write(f"role {role.name}: {role.members} have it")
            after = roles[-1].name
        for holder in ("role", "token"):
            after = behind = ""
            while held := client.query(ListPermissions(holder, after, behind)).permissions:
                for one in held:
                    self.stdout.write(f"{holder} {one.name}: {permitting.spelled(one)}")
                after, behind = held[-1].name, held[-1].prefix

    def _principal(self, client: Client, view: commands.PrincipalView) -> None:
        access = client.query(GetAccess(view.name))
        roles = f"; roles {', '.join(access.roles)}" if access.roles else ""
        tokens = f"; tokens {', '.join(view.tokens)}" if view.tokens else ""
        self.stdout.write(f"principal {view.name}: {' '.join(permitting.all_of(access)) or 'nothing'}{roles}{tokens}")
        self._say_quota(view.name, client.query(GetQuota(view.name)))

    def _say_quota(self, who: str, view: QuotaView) -> None:
        if view.own is None:
            return
        amounts = {what: getattr(view.own, what) for what in permitting.AMOUNTS}
        said = [
            f"{what} {getattr(view.used, what)} of {most}"
            if hasattr(view.used, what) and view.principal != EACH
            else f"{what} up to {most}"
            for what, most in amounts.items()
            if most >= 0
        ]
        self.stdout.write(f"quota of {who}: {', '.join(said) or 'none'}")
