"""What administrators say of permissions, roles, tokens and quotas, as the commands that it becomes: for the page and
for `manage.py access`. Whatever is no such thing is refused here with what was expected; the rest is the log's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from coordinator.statemachine import commands
from coordinator.statemachine.permissions import (
    NO_QUOTA,
    AccessView,
    HeldPermission,
    NarrowToken,
    Permission,
    Quota,
    RemoveRole,
    SetPermission,
    SetQuota,
    SetRole,
    SetRoles,
)

Change = SetPermission | SetRole | RemoveRole | SetRoles | NarrowToken | SetQuota

AMOUNTS: Final = ("keys", "key_bytes", "sessions", "watches", "waiters")
CHANGES: Final = ("permit", "role", "remove-role", "roles", "narrow", "widen", "quota", "no-quota")


def rights_of(text: str) -> tuple[str, ...]:
    """`read,write`, or "" for none. Raises ValueError."""
    given = [part for part in text.replace(",", " ").split() if part]
    unknown = [part for part in given if part not in commands.RIGHTS]
    if unknown:
        raise ValueError(f"expected some of {', '.join(commands.RIGHTS)}; came {', '.join(unknown)}")
    return tuple(right for right in commands.RIGHTS if right in given)


def prefix_of(text: str) -> str:
    """A prefix as the cluster keeps it; "" is everything. Raises ValueError."""
    return commands.canonical_name(text) if text.removeprefix("/") else ""


def permission_of(text: str) -> Permission:
    """`PREFIX:RIGHTS`, as in `build/:read,write`; `:read` is read everything. Raises ValueError."""
    prefix, colon, rights = text.rpartition(":")
    if not colon:
        raise ValueError(f"expected PREFIX:RIGHTS, as in build/:read,write; came {text!r}")
    return Permission(prefix_of(prefix), rights_of(rights))


def amount_of(text: str) -> int:
    """A number from 0 on; "": no quota. Raises ValueError."""
    if not text.strip():
        return NO_QUOTA
    if not text.strip().isascii() or not text.strip().isdigit():
        raise ValueError(f"expected a number from 0 on, or nothing for no quota; came {text!r}")
    return int(text)


def change_of(kind: str, fields: Mapping[str, str]) -> Change:
    """The command of a form, or of a line of arguments. `permissions` and `roles` are separated by spaces. Raises
    ValueError."""
    name = fields.get("name", "").strip()
    permissions = _permissions(fields.get("permissions", "").split())
    match kind:
        case "permit":
            holder = fields.get("holder", "principal")
            if holder not in ("principal", "role"):
                raise ValueError(f"a permission is held by a principal or a role, not by {holder!r}")
            prefix, rights = prefix_of(fields.get("prefix", "").strip()), rights_of(fields.get("rights", ""))
            return SetPermission("role" if holder == "role" else "principal", name, prefix, rights)
        case "role":
            return SetRole(name, permissions)
        case "remove-role":
            return RemoveRole(name)
        case "roles":
            return SetRoles(name, tuple(fields.get("roles", "").split()))
        case "narrow":
            return NarrowToken(name, permissions)
        case "widen":
            return NarrowToken(name, None)
        case "quota":
            return SetQuota(name, Quota(**{what: amount_of(fields.get(what, "")) for what in AMOUNTS}))
        case "no-quota":
            return SetQuota(name, None)
    raise ValueError(f"expected one of {', '.join(CHANGES)}; came {kind!r}")


def _permissions(texts: Sequence[str]) -> tuple[Permission, ...]:
    return tuple(permission_of(text) for text in texts)


def spelled(permission: Permission | HeldPermission) -> str:
    """As `permission_of` reads it."""
    return _spelled(permission.prefix, permission.rights)


def all_of(held: AccessView) -> list[str]:
    """All that a principal may by itself, spelled: what `SetPrincipal` said, and its permissions."""
    said = [_spelled(prefix, held.rights) for prefix in held.prefixes or ("",) if held.rights]
    return said + [spelled(permission) for permission in held.permissions]


def _spelled(prefix: str, rights: Sequence[str]) -> str:
    return f"{prefix}:{','.join(rights)}"
