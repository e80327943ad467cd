"""docs/membership.md: every action on clusters stands among its commands."""

from __future__ import annotations

import re

from django.core.management import get_commands, load_command_class

from tests.unit.pages import DOCS, section


def test_every_action_on_clusters_is_among_the_pages_commands() -> None:
    text = section(DOCS / "membership.md", "The commands")
    lines = re.findall(r"^ {4}python manage\.py cluster ([a-z| -]+)", text, re.MULTILINE)
    said = {word.strip() for line in lines for word in line.split("|")}
    parser = load_command_class(get_commands()["cluster"], "cluster").create_parser("manage.py", "cluster")
    (actions,) = [set(each.choices or ()) for each in parser._actions if each.dest == "action"]
    assert len(actions) > 10
    assert actions == said
