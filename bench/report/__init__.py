"""Rows and verdicts for people and other tools: tables, Markdown, HTML, exports; torch-free."""
