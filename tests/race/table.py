"""The rows as a table: for a terminal, and in Markdown for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.race.contenders import OURS, REFERENCE, REFERENCE_NFT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tests.race.rows import Row

COLUMNS = {OURS: "ours", REFERENCE: "reference, iptables", REFERENCE_NFT: "reference, nft"}


def caption(about: Mapping[str, Any]) -> str:
    """Tell the machine and its load."""
    loads = f"{about['load']} before and {about['load after']} after"
    return f"{about['machine']}, {about['processors']} processors, load {loads}; {about['reference']}"


def text(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = [_cells(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(_HEAD, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (_HEAD, *lines)
    )


def markdown(rows: Sequence[Row]) -> str:
    """For the documentation."""
    head, *lines = (f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (_HEAD, *map(_cells, rows)))
    return "\n".join((head, "|---" * len(_HEAD) + "|", *lines))


_HEAD = ("p50 · p99, ms or MiB", *COLUMNS.values(), "ratio", "target")


def _cells(row: Row) -> tuple[str, ...]:
    compared = f"p{row.percent:g}"
    ratio = f"{row.ratio:.3f}" + ("" if row.percent == 50 else f" ({compared})")
    missed = ", missed" if row.is_met is False else ""
    target = "" if row.target is None else f"≤ {row.target}{missed}"
    return (f"{row.what}{', MiB' if row.unit == 'MiB' else ''}", *(_pair(row, name) for name in COLUMNS), ratio, target)


def _pair(row: Row, name: str) -> str:
    middle, high = row.figure(name, 50), row.figure(name, 99)
    if middle is None or high is None:
        return ""
    return _short(middle) if len(row.values[name]) == 1 else f"{_short(middle)} · {_short(high)}"


def _short(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
