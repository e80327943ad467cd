"""What a signed-in person may do on the live page, as Django's permissions say. The page only shows or hides by these;
the log decides each act again (rule 9)."""

from __future__ import annotations

from typing import Any, Final

READ: Final = "conclave.read_state"
LOCK: Final = "conclave.use_locks"
ADMINISTER: Final = "conclave.administer"
VIEW_AUDIT: Final = "conclave.view_auditentry"


def may_see_audit(user: Any) -> bool:
    return bool(user.is_staff and user.has_perm(VIEW_AUDIT))


def standing(user: Any) -> str:
    """A word for the sidebar: what this person is here."""
    if user.has_perm(ADMINISTER):
        return "operator"
    return "member" if user.has_perm(LOCK) else "reader"
