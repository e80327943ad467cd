"""The sockets of the live pages. Origin and session are checked by what `coordinator.asgi` wraps around them."""

from __future__ import annotations

from django.urls import path, re_path

from dashboard.consumers import LiveConsumer, NoSuchSocket

websocket_urlpatterns = [
    path("ws/live/<slug:cluster>/", LiveConsumer.as_asgi()),
    re_path("", NoSuchSocket.as_asgi()),
]
