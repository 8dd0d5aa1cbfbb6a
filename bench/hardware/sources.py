"""The table of public sources at the head of a data file, and references to it.

Rows cite sources by short key, so that one address stands in one place. A citation that is not in
the table is an error: every figure must lead somewhere.
"""

from bench.hardware.loader import Row


def load_sources(document: Row) -> dict[str, str]:
    """Return 'title, address' by key."""
    table = document.child("sources", required=True)
    sources: dict[str, str] = {}
    for key in table.keys():  # noqa: SIM118  # a Row is no mapping: keys() also checks them
        entry = table.child(key, required=True)
        address = entry.text("url")
        sources[key] = entry.need_text("title") + (f", {address}" if address else "")
        entry.finish()
    return sources


def take_sources(row: Row, *, sources: dict[str, str], key: str) -> tuple[str, ...]:
    """Read the citations under `key` (one text, or a list) as 'title, address'; at least one."""
    cited = (row.need_text(key),) if key == "source" else row.texts(key, required=True)
    if not cited:
        raise row.complain(key, "cites nothing")
    for name in cited:
        if name not in sources:
            raise row.complain(key, f"{name!r} is not in the table of sources")
    return tuple(sources[name] for name in cited)
