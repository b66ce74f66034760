"""Does each kind of page allow the script that it holds, and nothing else?"""

from __future__ import annotations

import base64
import hashlib
import html
import re

import pytest

from reasondiff.graphs import viewer
from reasondiff.policy import policy
from reasondiff.report.blocks import Browser, Section
from reasondiff.report.page import render
from reasondiff.store import as_script

BROWSER = Browser(as_script({"strings": [], "dictionaries": [], "latents": []}))
PAGES = {
    "report": lambda: render("A title", None, [Section("one", "One", [])], {}),
    "report with latents": lambda: render("A title", None, [Section("one", "One", [BROWSER])], {}),
    "viewer": lambda: viewer.page([], {}),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_policy_of_a_page_names_its_script_before_anything_else_is_read(name):
    page = PAGES[name]()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (said,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert html.unescape(said) == policy(script)
    assert page.index("Content-Security-Policy") < min(page.index("<script"), page.index("<style"), page.index("<link"))
    assert not re.search(r"<[^>]+\son\w+=", page), "a handler in an attribute would not run"


def test_a_policy_forbids_all_that_is_not_named():
    rules = dict(rule.split(" ", 1) for rule in policy("alert(1)").split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    digest = base64.b64encode(hashlib.sha256(b"alert(1)").digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}' 'strict-dynamic'"
    assert "http" not in policy("") and "unsafe-eval" not in policy("")
