"""`python manage.py up`: set an installation up where that has not been done, then become its supervisor.

Each step can be cut off at any moment and is found done or undone by the next `up`. The steps themselves are in
`coordinator.setting_up`; this file has their order, what the person at the terminal reads, and which parts there are.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from coordinator import embedded_redis, environment, setting_up, supervision
from coordinator.config import PROJECT, Config, ConfigError, load_config
from coordinator.data_directory import DataDirectory
from coordinator.ports import port_is_free

WEB_STOP_S_MAX = 2
NODE_STOP_S_MAX = 4
REDIS_STOP_S_MAX = 1
RECONCILER_STOP_S_MAX = 1
"""Together below the 10 s within which everything has to have stopped."""
WEB_GOODBYE_S = 1
"""How long the web server lets open requests finish."""
SOCKET_MESSAGE_BYTES_MAX = 64 * 1024
"""What a browser sends over a WebSocket is small."""


class Command(BaseCommand):
    help = "Start Conclave: set up what is missing, then run and watch Redis, the nodes and the web server."
    requires_system_checks: list[str] = []  # noqa: RUF012  # Django's own type for it
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.monotonic()
        heeded = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            heeded.discard(signal.SIGHUP)  # Started by nohup: it is to go on when its terminal is closed.
        for number in heeded:
            # All alike, and heeded even where a shell started this in the background and had SIGINT ignored.
            signal.signal(number, signal.default_int_handler)
        try:
            self._up(started)
        except (ConfigError, setting_up.SetUpError) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            raise CommandError("stopped before anything was started", returncode=130) from None

    def _up(self, started: float) -> None:
        os.umask(0o077)
        config = load_config()
        data = DataDirectory.of(config)
        setting_up.hold(data)
        self._say(f"Conclave keeps everything in {data.path}")
        if not port_is_free(config.bind, config.port, "CONCLAVE"):
            raise ConfigError(
                f"CONCLAVE_PORT: expected a free port; another program listens on {config.bind}:{config.port}"
            )
        setting_up.require_ports_of_their_own(config, data)
        redis = self._redis(config, data)

        births = setting_up.Births.begin(config, data)
        ports = self._metrics_ports(config, data)
        for line in setting_up.about_nodes(config, data):
            self._say(line)
        is_database_there = self._migrate(config, data)
        setting_up.collect_static_files(data)
        if births is not None:
            self._say(f"made the cluster default, {births.finish()}, with {', '.join(config.node_names)}")
        if is_database_there:
            setting_up.make_administrator(config, self._say)

        nodes = [self._node(config, name, ports.get(name, 0)) for name in config.node_names]
        parts = [*redis, *nodes, self._web(config), self._reconciler()]
        settings = data.run / "supervisor.conf"
        supervision.write_settings(settings, parts, supervisor_pid=os.getpid(), directory=PROJECT)
        self._say(
            f"starting {', '.join(part.name for part in parts)}, each with its log in {data.log}; Ctrl-C stops them all"
        )
        _set_environment_of_parts(data)
        supervision.become_supervisor(settings, data.path, _announcement(config, started))

    def _migrate(self, config: Config, data: DataDirectory) -> bool:
        """False where somebody else's database server is away: it keeps nobody's nodes from starting (rule 8)."""
        try:
            setting_up.migrate()
        except setting_up.NotThereNow as error:
            if not (config.has_database_server and data.nodes_on_disk()):
                raise
            self._say(f"{error}; all the rest starts, and pages wait for it. Where its tables are of an older version")
            self._say("then, /readyz says that it lacks migrations: `python manage.py migrate` makes them")
            return False
        return True

    def _redis(self, config: Config, data: DataDirectory) -> list[supervision.Part]:
        if config.redis_url is not None:
            address, why_not = embedded_redis.look_at(config.redis_url)
            waits = f"; it does not serve us yet, and everything waits for it: {why_not}" if why_not else ""
            self._say(f"Redis at {address}, from REDIS_URL{waits}")
            return []
        server = embedded_redis.find_server()
        command = embedded_redis.prepare(data, server)
        version = ".".join(map(str, server.version))
        self._say(f"Redis {version} ({server.program}) on 127.0.0.1:{data.redis_state().port}, saving nothing")
        return [supervision.Part("redis", command, rank=10, stop_s_max=REDIS_STOP_S_MAX)]

    def _metrics_ports(self, config: Config, data: DataDirectory) -> dict[str, int]:
        """The port of each node's metrics, none where they are off; and a line that says them."""
        ports = setting_up.metrics_ports(config, data)
        if not ports:
            return ports
        said = [f"http://{config.page_host}/metrics (web)"]
        for name, port in ports.items():
            is_free = port_is_free(config.metrics_bind, port, "CONCLAVE_METRICS")
            taken = "" if is_free else ", not served: another program listens there"
            said.append(f"{config.metrics_url(port)} ({name}{taken})")
        self._say(f"metrics: {', '.join(said)}")
        return ports

    def _node(self, config: Config, name: str, metrics_port: int) -> supervision.Part:
        command = [
            sys.executable,
            "-m",
            "celery",
            *(["--quiet"] if config.log == "json" else []),  # its banner is no JSON
            "-A",
            "coordinator",
            "worker",
            "--pool",
            "solo",
            "--loglevel",
            "INFO",
        ]
        command += ["--without-gossip", "--without-mingle", "-n", f"{name}@conclave", "-Q", f"conclave.node.{name}"]
        environment = {"CONCLAVE_NODE": name, "CONCLAVE_METRICS_PORT": str(metrics_port)}
        return supervision.Part(
            name, command, rank=20, stop_s_max=NODE_STOP_S_MAX, group="nodes", environment=environment
        )

    def _web(self, config: Config) -> supervision.Part:
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "coordinator.asgi:application",
            "--no-access-log",
            "--no-server-header",
            "--http",
            "coordinator.http_connections:BoundedHttp",
            "--workers",
            "1",  # also where a variable says otherwise: the others would outlive it, and keep its port
        ]
        command += ["--host", config.bind, "--port", str(config.port)]
        command += ["--timeout-graceful-shutdown", str(WEB_GOODBYE_S), "--ws-max-size", str(SOCKET_MESSAGE_BYTES_MAX)]
        if config.proxy_headers:
            command += ["--proxy-headers", "--forwarded-allow-ips", ",".join(config.proxies)]
        else:
            command += ["--no-proxy-headers"]
        return supervision.Part("web", command, rank=30, stop_s_max=WEB_STOP_S_MAX)

    def _reconciler(self) -> supervision.Part:
        command = [sys.executable, "-m", "coordinator.membership"]
        return supervision.Part("reconciler", command, rank=40, stop_s_max=RECONCILER_STOP_S_MAX)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # whoever read it has gone; that is no reason to stop
            self.stdout.write(line)
            self.stdout.flush()


def _set_environment_of_parts(data: DataDirectory) -> None:
    environment.disregard_others()
    os.environ["CONCLAVE_DATA"] = str(data.path)
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ.pop("CONCLAVE_ADMIN_PASSWORD", None)
    os.environ.pop("CONCLAVE_NODE", None)


def _announcement(config: Config, started: float) -> list[str]:
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.bind, config.bind)  # noqa: S104
    arguments = [address, str(config.port), config.page_host, str(started)]
    return [sys.executable, "-m", "coordinator.announce", *arguments]
