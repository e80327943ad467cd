"""What the admin looks like: the settings of django-unfold. Its links are addresses of pages, looked up when shown."""

from __future__ import annotations

from typing import Any

from django.templatetags.static import static
from django.urls import reverse_lazy


def _item(title: str, icon: str, link: Any, permission: str | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"title": title, "icon": icon, "link": link}
    if permission:
        item["permission"] = lambda request: request.user.has_perm(permission)
    return item


UNFOLD = {
    "SITE_TITLE": "Conclave",
    "SITE_HEADER": "Conclave",
    "SITE_SUBHEADER": "the record of what the log says",
    "SITE_URL": "/",
    "SITE_ICON": lambda request: static("conclave/mark.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("conclave/mark.svg")}],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "7px",
    "COLORS": {
        "base": {
            "50": "#f7f6f2",
            "100": "#efede7",
            "200": "#e4e1d9",
            "300": "#cfcbc1",
            "400": "#a6afbb",
            "500": "#727a86",
            "600": "#59606b",
            "700": "#3a424d",
            "800": "#2a313b",
            "900": "#181d24",
            "950": "#11151a",
        },
        "primary": {
            "50": "#e9f6f3",
            "100": "#d3ece7",
            "200": "#a8dad1",
            "300": "#78c8bb",
            "400": "#7fd4c7",
            "500": "#4cc2b1",
            "600": "#0b6e63",
            "700": "#095a51",
            "800": "#084842",
            "900": "#073b36",
            "950": "#042421",
        },
    },
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "title": "Watch",
                "items": [
                    # Never marked as where one is: every address begins with its own.
                    _item("Live page", "monitoring", "/") | {"active": lambda request: False},
                    _item("API", "api", reverse_lazy("api-docs")),
                ],
            },
            {
                "title": "The record",
                "separator": True,
                "items": [
                    _item(
                        "Clusters", "hub", reverse_lazy("admin:conclave_cluster_changelist"), "conclave.view_cluster"
                    ),
                    _item("Nodes", "dns", reverse_lazy("admin:conclave_node_changelist"), "conclave.view_node"),
                    _item(
                        "Replicas",
                        "account_tree",
                        reverse_lazy("admin:conclave_replica_changelist"),
                        "conclave.view_replica",
                    ),
                    _item(
                        "Audit",
                        "history",
                        reverse_lazy("admin:conclave_auditentry_changelist"),
                        "conclave.view_auditentry",
                    ),
                ],
            },
            {
                "title": "People",
                "separator": True,
                "items": [
                    _item("Users", "person", reverse_lazy("admin:auth_user_changelist"), "auth.view_user"),
                    _item("Groups", "group", reverse_lazy("admin:auth_group_changelist"), "auth.view_group"),
                ],
            },
        ],
    },
}
