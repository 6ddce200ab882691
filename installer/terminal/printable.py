"""Escapes text for a terminal, so that foreign text cannot control it or imitate our own lines.

Names, kinds and reasons come from files, objects and programs; they may hold escape sequences, C1 controls and bidirectional
overrides. All output for people goes through `say`; output with its own escaping (JSON, YAML, SVG), or with our colours around
`printable` text, goes through `write`.
"""

from __future__ import annotations

import io
import sys

import click


def printable(text: str) -> str:
    r"""Escape what would break a line or control a terminal, such as `\\x1b`."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_lines(text: str) -> str:
    """Escape the same, but keep line breaks and tabs."""
    return "".join(each if each in "\n\t" else printable(each) for each in text)


def say(text: str, *, err: bool = False) -> None:
    """Print text for people, on lines of its own."""
    click.echo(printable_lines(text.removesuffix("\n")), err=err)  # noqa: TID251 - here it is


def write(text: str) -> None:
    """Write text that is already escaped."""
    click.echo(text, nl=False, color=True)  # noqa: TID251 - likewise


class Group(click.Group):
    """A group of commands that escapes what its errors quote, and what stdout's encoding cannot write."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = printable_lines(error.message)
            raise
