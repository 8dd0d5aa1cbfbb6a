"""What `bench list links NAME --check CSV` prints: how far the model is from a measured table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.cli.output import print_json, print_note, text_table
from bench.core.paths import user_path

if TYPE_CHECKING:
    from bench.hardware.links.link_check import LinkCheck


def render_check(*, name: str, table: str, use_curves: bool, as_json: bool) -> None:
    """Score the link `name` against the CSV at `table` and print the errors."""
    from bench.hardware.links.curves import read_table
    from bench.hardware.links.link_check import check_link
    from bench.hardware.links.topology import parse_topology

    topology = parse_topology(name)
    points = read_table(user_path(table, what="table"))
    check = check_link(points, topology=topology, use_curves=use_curves)
    if as_json:
        print_json(_document(check, table=table))
    else:
        _print(check)


def _document(check: LinkCheck, *, table: str) -> dict[str, object]:
    from bench.hardware.links.link_check import MEDIUM_BYTES, SMALL_BYTES

    return {
        "link": check.link,
        "table": table,
        "methods": list(check.methods),
        "leave_one_size_out": any("curve" in method for method in check.methods),
        "is_rated": check.is_rated,
        "small_to_bytes": SMALL_BYTES,
        "medium_to_bytes": MEDIUM_BYTES,
        "num_points": check.overall.num_points,
        "mean_abs_error": check.overall.mean_abs_error,
        "scores": [asdict(score) for score in check.scores],
    }


def _print(check: LinkCheck) -> None:
    from bench.hardware.links.link_check import SIZE_CLASSES

    cells = {(score.op, score.size_class): score for score in check.scores}
    rows = []
    for op in dict.fromkeys(score.op for score in check.scores):
        row = [op]
        for size_class in (*SIZE_CLASSES, "all"):
            score = cells.get((op, size_class))
            row.append("" if score is None else f"{score.mean_abs_error:.1%}")
        whole = cells[op, "all"]
        rows.append([*row, f"{whole.mean_error:+.1%}", str(whole.num_points)])
    head = ("op", "<=64 KiB", "<=8 MiB", "larger", "all", "bias", "points")
    print(text_table(head, rows, left=("op",)))
    how = ", ".join(check.methods)
    left_out = any("curve" in method for method in check.methods)
    print(
        f"{check.link}: mean absolute error {check.overall.mean_abs_error:.1%} by {how}"
        + ("; each size predicted without its own measurements" if left_out else "")
    )
    if not check.is_rated:
        print(
            "unrated: a formula cannot know what PCI Express reaches on a given board; measure it"
        )
    print_note("mean of |predicted / measured - 1|; bias below zero: the model is too fast")
