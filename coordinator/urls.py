"""Which address belongs to whom. Everything is behind a login but the sign-in page and the three health addresses;
the API and the metrics check credentials of their own."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from coordinator import accounts, health, web_metrics
from coordinator.api import api, docs

admin.autodiscover()

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("readyz/<str:cluster>", health.readyz_cluster, name="readyz-cluster"),
    path("metrics", web_metrics.metrics, name="metrics"),
    path("accounts/login/", accounts.SignIn.as_view(), name="login"),
    path("accounts/logout/", accounts.SignOut.as_view(), name="logout"),
    path("admin/login/", accounts.admin_sign_in),
    path("admin/logout/", accounts.SignOut.as_view()),
    path("admin/", admin.site.urls),
    path("api/docs", docs, name="api-docs"),
    path("api/v1/", api.urls),
    path("", include("dashboard.urls")),
]
