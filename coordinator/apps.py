"""The Django app of the record, the API and the admin. Its label is `conclave`: it also lives in others' projects."""

from __future__ import annotations

from django.apps import AppConfig


class ConclaveConfig(AppConfig):
    name = "coordinator"
    label = "conclave"
    verbose_name = "Conclave"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # A task that the web process sends needs the broker of our Celery app, not of Celery's default one.
        import coordinator.celery  # noqa: F401
