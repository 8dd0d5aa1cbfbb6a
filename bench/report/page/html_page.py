"""The whole page: one file that needs no network, with its own style and a small script.

The content security policy allows that one script by its hash and nothing else, so that even a cell
that slipped through unescaped could not run.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from bench.report.page.content import Report
from bench.report.page.html import marked, section, text

GENERATOR = '<meta name="generator" content="bench report">'
"""By this line a file is known to be a report, which a later report may replace."""


def page(report: Report) -> str:
    """HTML of a report."""
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "\n".join(
        f'<li><a href="#{text(one.name)}">{text(one.title)}</a></li>' for one in report.sections
    )
    summary = "\n".join(f"<p>{marked(line)}</p>" for line in report.summary)
    badges = "".join(f' <span class="badge {text(m)}">{text(m)}</span>' for m in report.modes)
    body = "\n".join(section(one) for one in report.sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(report.title)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#{text(report.sections[0].name)}">Skip to the first section</a>
<header>
<h1>{text(report.title)}{badges}</h1>
{summary}
<nav aria-label="Sections"><ul>
{links}
</ul></nav>
</header>
<main>
{body}
</main>
<footer><p>Made by {text(report.made_by)}.</p></footer>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return (resources.files("bench.report.page") / name).read_text(encoding="utf-8")
