"""Pages: self-contained HTML through jinja2, one base template for all; nothing in them comes from another host.

A room keeps its own templates beside its code and extends `base.html.j2`:

    render(Path(__file__).with_name("report.html.j2"), title="Benchmarks", results=results)
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).with_name("templates")


def render(template: Path, **values: Any) -> str:
    """The page that `template` (a file; it may extend `base.html.j2`) makes of `values`; what is no Markup is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([template.parent, TEMPLATES])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals["address"] = address
    return made.get_template(template.name).render(**values)


def address(content: bytes, kind: str = "image/png") -> str:
    """Bytes as a data address, so that a page holds its pictures itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
