"""The live pages as a Django app. Its label is not `dashboard`, which other people's projects have taken."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "dashboard"
    label = "conclave_dashboard"
    verbose_name = "Conclave's live pages"
