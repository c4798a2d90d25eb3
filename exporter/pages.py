"""The landing page: what this endpoint is, and links to what it serves."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:3rem auto;max-width:40rem;padding:0 1rem}}
dt{{margin-top:.6rem}}dd{{margin:0;color:#555}}</style></head>
<body><h1>{title}</h1><dl>
{links}
</dl></body></html>
"""


def landing(title: str, links: Mapping[str, str]) -> str:
    """HTML with one link a path, and what it is for."""
    items = (
        f'<dt><a href="{escape(path)}">{escape(path)}</a></dt><dd>{escape(text)}</dd>'
        for path, text in links.items()
    )
    return _PAGE.format(title=escape(title), links="\n".join(items))
