"""The composition root: the Celery app, and the node that a worker hosts where CONCLAVE_NODE names one."""

from __future__ import annotations

import os

from celery import Celery

# A node's tasks and remote-control commands; `celery inspect` and `celery control` look them up in their own process.
import coordinator.replica.tasks  # noqa: F401

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coordinator.settings")

app = Celery("coordinator")
app.config_from_object("django.conf:settings", namespace="CELERY")

if os.environ.get("CONCLAVE_NODE"):
    from coordinator.config import ConfigError, DataDirectory, load_config
    from coordinator.embedded_redis import ensure_client_user
    from coordinator.replica.births import WebToken
    from coordinator.replica.bootstep import NodeStep, queue_of
    from coordinator.replica.host import HostSettings

    def _node_settings() -> HostSettings:
        try:
            config = load_config()
            data = DataDirectory(config.data)
        except ConfigError as error:
            raise SystemExit(str(error)) from error
        assert config.node is not None, "CONCLAVE_NODE is set"
        realm = data.realm()

        def greet() -> None:
            if config.redis_url:
                ensure_client_user(config.redis_url, realm, data.client_password())

        token = data.web_token()
        return HostSettings(
            node=config.node,
            directory=data.nodes / config.node,
            redis_url=data.node_redis_url(config),
            realm=realm,
            peer_key=data.peer_key(),
            faults_allowed=config.faults,
            greet=greet,
            web_token=WebToken(token.token_id, token.key),
            backups=data.path / "backups" / config.node,
        )

    class _NodeStep(NodeStep):
        settings = staticmethod(_node_settings)

    app.conf.task_default_queue = queue_of(os.environ["CONCLAVE_NODE"])
    app.steps["worker"].add(_NodeStep)
