"""The composition root: the Celery app, and the node that a worker hosts where CONCLAVE_NODE names one."""

from __future__ import annotations

import logging.config
import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

from coordinator import compiled, environment

_USE = compiled.use() if os.environ.get("CONCLAVE_NODE") else None

# A node's tasks and remote-control commands; `celery inspect` and `celery control` look them up in their own process.
import coordinator.replica.tasks  # noqa: E402, F401 - after the compiled modules can be found

if environment.is_ours():
    environment.disregard_others()

# A node does without what Celery does for programs of Django: no task of ours comes near the database, and to set
# Django up, with its checks, which import every page, took a node longer than all else before its first turn.
app = Celery(
    "coordinator",
    fixups=() if os.environ.get("CONCLAVE_NODE") else None,
    control="coordinator.replica.control:Control",
)
app.config_from_object("django.conf:settings", namespace="CELERY")


@setup_logging.connect(weak=False)
def _log_as_django_does(**_: Any) -> None:
    """Where anybody hears this signal, Celery sets up no logging of its own."""
    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)
    logging.captureWarnings(True)  # noqa: FBT003 - the standard library's own signature


if os.environ.get("CONCLAVE_NODE"):
    from coordinator.clients_user import ClientsUser
    from coordinator.config import Config, ConfigError, address_for_others, load_config
    from coordinator.consensus.raft.options import Options
    from coordinator.data_directory import DataDirectory
    from coordinator.replica.births import WebToken
    from coordinator.replica.bootstep import NodeStep, queue_of
    from coordinator.replica.host import HostSettings
    from coordinator.replica.metrics_server import MetricsAddress

    _log_as_django_does()  # what Celery warns of comes before its signal

    def _metrics_address(config: Config, data: DataDirectory, node: str) -> MetricsAddress | None:
        port = data.metrics_port(node, config) if config.metrics_port is None else config.metrics_port
        return MetricsAddress(config.metrics_bind, port, config.metrics_token or "") if port else None

    def _node_settings() -> HostSettings:
        try:
            return _settings_of_node()
        except ConfigError as error:
            raise SystemExit(str(error)) from None

    def _settings_of_node() -> HostSettings:
        config = load_config()
        if not __debug__:
            raise ConfigError("PYTHONOPTIMIZE: expected not to be set, nor `python -O`: a node's assertions stay on")
        assert config.node is not None, "CONCLAVE_NODE is set"
        data = DataDirectory.of(config)
        metrics = _metrics_address(config, data, config.node)
        realm = data.realm()

        external = config.external_redis
        user = ClientsUser(external, realm, data.client_password()) if external is not None else None

        token = data.web_token()
        assert _USE is not None, "CONCLAVE_NODE is set"
        logging.getLogger(__name__).info("the replicas' side runs %s", _USE.note)
        return HostSettings(
            node=config.node,
            directory=data.nodes / config.node,
            redis_url=data.mailbox_redis_url(config),
            address=address_for_others(config.node_redis) if config.node_redis else "",
            shared_redis=data.node_redis_url(config) if config.node_redis else "",
            realm=realm,
            peer_key=data.peer_key(),
            faults_allowed=config.faults,
            greet=user.greet if user is not None else lambda: None,
            web_token=WebToken(token.token_id, token.key),
            backups=data.path / "backups" / config.node,
            metrics=metrics,
            options=Options(spare_us=config.spare_us),
        )

    class _NodeStep(NodeStep):
        settings = staticmethod(_node_settings)

    app.conf.worker_consumer = "coordinator.replica.consumer:PatientConsumer"
    app.conf.task_default_queue = queue_of(os.environ["CONCLAVE_NODE"])
    app.steps["worker"].add(_NodeStep)
