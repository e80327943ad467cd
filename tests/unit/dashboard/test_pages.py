"""The pages as the server sends them: who sees what, and nothing that the strict policy would block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from coordinator import audit
from coordinator.models import Cluster

pytestmark = pytest.mark.django_db

STATIC = Path(__file__).parents[3] / "static" / "conclave"
TEMPLATES = Path(__file__).parents[3] / "templates"


def user(name: str, *permissions: str, **more: Any) -> Any:
    made = get_user_model().objects.create_user(name, password="x", **more)
    made.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return made


def page(who: Any, path: str) -> Any:
    client = Client()
    client.force_login(who)
    return client.get(path)


@pytest.fixture
def administrator() -> Any:
    return get_user_model().objects.create_superuser("admin", password="x")


def test_the_first_page_is_the_live_page_of_the_default_cluster(administrator: Any) -> None:
    answer = page(administrator, "/")
    assert (answer.status_code, answer["Location"]) == (302, "/live/default")


@pytest.mark.parametrize("path", ["/", "/live/default", "/audit"])
def test_every_page_is_behind_the_sign_in(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/")


def test_without_the_right_to_read_the_page_says_what_is_needed() -> None:
    answer = page(user("eve"), "/live/default")
    assert answer.status_code == 403
    assert "Can read keys and locks of clusters" in answer.content.decode()


def test_a_cluster_that_nobody_recorded_has_no_page(administrator: Any) -> None:
    assert page(administrator, "/live/nobody").status_code == 404
    Cluster.objects.create(name="nobody", cluster_id="00" * 8)
    assert page(administrator, "/live/nobody").status_code == 200


def test_a_reader_sees_the_page_and_no_way_to_act() -> None:
    html = page(user("ann", "read_state"), "/live/default").content.decode()
    assert 'data-may-lock="no"' in html
    assert 'data-may-administer="no"' in html
    assert 'data-testid="take-lock"' not in html
    assert ">Audit<" not in html
    assert "reader" in html


def test_an_operator_sees_all_of_it(administrator: Any) -> None:
    html = page(administrator, "/live/default").content.decode()
    assert 'data-may-administer="yes"' in html
    assert 'data-testid="take-lock"' in html
    assert ">Audit<" in html


def test_a_user_name_is_text_wherever_it_stands(administrator: Any) -> None:
    administrator.username = 'a"><script>x</script>'
    administrator.save()
    assert "<script>x" not in page(administrator, "/live/default").content.decode()


def test_the_audit_is_for_staff_with_the_right_to_see_it(administrator: Any) -> None:
    assert page(user("bob", "view_auditentry"), "/audit").status_code == 403
    assert page(user("eve", is_staff=True), "/audit").status_code == 403
    assert page(user("ann", "view_auditentry", is_staff=True), "/audit").status_code == 200


def test_the_audit_lists_what_was_done_newest_first(administrator: Any) -> None:
    audit.record(actor="ann", action="node.crashed", target="default/node2", reason="a drill <b>")
    audit.record(actor="bob", action="signed-in")
    html = page(administrator, "/audit").content.decode()
    assert html.index("signed-in") < html.index("node.crashed")
    assert "a drill &lt;b&gt;" in html


def test_the_audit_turns_its_pages(administrator: Any) -> None:
    for number in range(60):
        audit.record(actor="ann", action=f"act-{number}")
    assert "?page=2" in page(administrator, "/audit").content.decode()
    second = page(administrator, "/audit?page=2").content.decode()
    assert "act-5<" in second
    assert "?page=1" in second


def test_pages_that_refuse_look_like_ours(administrator: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    assert "This form is too old" in client.post("/accounts/login/", {}).content.decode()
    assert "There is nothing here" in page(administrator, "/no/such/page").content.decode()
    assert "Sign in" in Client().get("/accounts/login/").content.decode()


INLINE = re.compile(r"<style|\sstyle=|\son[a-z]+\s*=|<script(?![^>]*\ssrc=)|javascript:", re.IGNORECASE)


@pytest.mark.parametrize("path", ["/live/default", "/audit", "/accounts/login/", "/no/such/page"])
def test_no_page_needs_what_the_policy_forbids(administrator: Any, path: str) -> None:
    audit.record(actor="ann", action="node.crashed")
    answer = page(administrator, path)
    html = answer.content.decode()
    assert not INLINE.search(html)
    assert not re.findall(r"(?:src|href|action)=\"(?:https?:)?//[^\"]*", html)
    assert "script-src 'self'" in answer["Content-Security-Policy"]
    assert "unsafe" not in answer["Content-Security-Policy"]


@pytest.mark.parametrize("path", sorted(STATIC.rglob("*.*")), ids=lambda path: path.name)
def test_no_static_file_calls_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "://" not in text.replace('wss" : "ws"}://', "")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_no_template_marks_anything_as_safe(path: Path) -> None:
    assert not re.search(r"\|safe|autoescape off|mark_safe", path.read_text(encoding="utf-8"))
