"""What collected static files are called: each by a hash of its content, so that a browser may keep it for ever."""

from __future__ import annotations

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage

OWN_SCRIPTS = "conclave/*.js"
"""The only scripts that import one another. To look for imports in all others (a megabyte and a half in one of them)
took five sixths of the time to collect static files, which a first start waits for."""


class StaticStorage(ManifestStaticFilesStorage):
    """Hashes the imports of our JavaScript modules too: a page never runs a new module with an old one beside it."""

    support_js_module_import_aggregation = True
    _js_module_import_aggregation_patterns = (
        OWN_SCRIPTS,
        ManifestStaticFilesStorage._js_module_import_aggregation_patterns[1],  # type: ignore[attr-defined]
    )
