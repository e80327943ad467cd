"""The addresses of the live pages."""

from __future__ import annotations

from django.urls import path

from dashboard import access_page, views

app_name = "conclave_dashboard"

urlpatterns = [
    path("", views.home, name="home"),
    path("live/<slug:cluster>", views.live, name="live"),
    path("access/<slug:cluster>", access_page.access_page, name="access"),
    path("audit", views.audit, name="audit"),
]
