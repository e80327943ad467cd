"""The addresses of the live pages."""

from __future__ import annotations

from django.urls import path

from dashboard import views

app_name = "conclave_dashboard"

urlpatterns = [
    path("", views.home, name="home"),
    path("live/<slug:cluster>", views.live, name="live"),
    path("audit", views.audit, name="audit"),
]
