"""Pages: whole, self-contained, escaped, and a template's mistake is an error rather than a gap."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from vitlens.display.page import TEMPLATES, render
from vitlens.display.table import Table

TEMPLATE = """{% extends "base.html.j2" %}
{% block style %}{% include "own.css" %}{% endblock %}
{% block body %}
<section><p>{{ text }}</p>{{ table }}<img src="{{ address(picture) }}" alt=""></section>
{% endblock %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "own.css").write_text(".own { color: red; }")
    (tmp_path / "page.html.j2").write_text(TEMPLATE)
    return tmp_path / "page.html.j2"


def test_a_page_needs_nothing_else(template: Path) -> None:
    page = render(template, title="A & B", text="<script>", table=Table(("n",), [("<i>",)]), picture=b"\x89PNG")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<title>A &amp; B</title>" in page and "<h1>A &amp; B</h1>" in page
    assert "<script" not in page and "&lt;script&gt;" in page and "<td>&lt;i&gt;</td>" in page
    assert ".own { color: red; }" in page and "--ink" in page
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:image/png;base64,iVBORw=="]
    assert "http" not in page and "@import" not in page and "url(" not in page


def test_what_a_template_asks_for_must_be_there(template: Path) -> None:
    with pytest.raises(UndefinedError, match="text"):
        render(template, title="A", table="", picture=b"")


def test_every_colour_has_a_dark_and_a_light_value() -> None:
    """A colour that is written out could not be read on the other ground."""
    css = (TEMPLATES / "base.css").read_text()
    light, dark = re.findall(r":root \{([^}]*)\}", css)
    names = re.compile(r"(--\w+):")
    assert names.findall(light) == names.findall(dark)
    rest = re.sub(r":root \{[^}]*\}", "", css)
    assert not re.findall(r"#[0-9a-f]{3,6}\b", rest)
    assert set(re.findall(r"var\((--\w+)\)", css)) <= set(names.findall(light))
