"""Rules as numbered lines, for people: the first difference of two listings, the lines around a failing one."""

from __future__ import annotations

AROUND = 3  # lines shown before and after the failing one


def difference(expected: str, seen: str) -> str | None:
    """Describe the first difference between two listings; None if they differ only in blanks."""
    expected_lines, actual_lines = _significant(expected), _significant(seen)
    for number, (line, other) in enumerate(zip(expected_lines, actual_lines, strict=False), 1):
        if line != other:
            return f"line {number}: saw {other!r}, expected {line!r}"
    if len(expected_lines) > len(actual_lines):
        return f"line {len(actual_lines) + 1}: saw the end, expected {expected_lines[len(actual_lines)]!r}"
    if len(actual_lines) > len(expected_lines):
        return f"line {len(expected_lines) + 1}: saw {actual_lines[len(expected_lines)]!r}, expected the end"
    return None


def excerpt(text: str, failing: int) -> str:
    """Show the lines around one, numbered from 1, and mark it."""
    lines = text.splitlines()
    shown = range(max(1, failing - AROUND), min(len(lines), failing + AROUND) + 1)
    return "\n".join(f"{'>' if number == failing else ' '} {number}: {lines[number - 1].strip()}" for number in shown)


def _significant(text: str) -> list[str]:
    return [line for line in map(str.strip, text.splitlines()) if line]
