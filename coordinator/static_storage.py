"""What collected static files are called: each by a hash of its content, so that a browser may keep it for ever."""

from __future__ import annotations

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class StaticStorage(ManifestStaticFilesStorage):
    """Hashes the imports of JavaScript modules too: a page never runs a new module with an old one beside it."""

    support_js_module_import_aggregation = True
