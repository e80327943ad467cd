#!/usr/bin/env python
"""Django's command line; `python manage.py up` starts everything."""

from __future__ import annotations

import os
import select
import signal
import sys

if sys.flags.safe_path:  # PYTHONSAFEPATH keeps the clone, in which all the rest lies, from where modules are looked for
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

try:
    from django.core.management import execute_from_command_line

    from coordinator.config import ConfigError
except ModuleNotFoundError as error:
    sys.exit(
        f"{sys.executable} lacks {error.name}. `make up` puts all that is needed into .venv: say .venv/bin/python "
        "manage.py, or `source .venv/bin/activate` once for a shell"
    )


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "coordinator.settings"
    try:
        try:
            execute_from_command_line(sys.argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Nobody reads on; nor is that an error of ours.
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was asked for until then may be done all the same\n")
        sys.exit(128 + signal.SIGINT)
    except ConfigError as error:
        sys.exit(f"This cannot be used:\n  {str(error).replace(chr(10), chr(10) + '  ')}")


def _nobody_reads() -> bool:
    """Is it standard output that broke, and no other pipe?"""
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in watched.poll(0))


if __name__ == "__main__":
    main()
