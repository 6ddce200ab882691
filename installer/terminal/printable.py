"""Text on its way to a terminal: what others wrote can neither drive it nor pass for lines of ours.

Names, kinds and reasons come from files, objects and programs; they may hold escape sequences, C1 controls and what turns text
round. All output for people goes through `say`; what escapes by rules of its own (JSON, YAML, SVG), or holds colours
of ours and has been made `printable` before, through `write`.
"""

from __future__ import annotations

import click


def printable(text: str) -> str:
    r"""Escape what would break a line, or drive a terminal: `\\x1b` is written as such."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_lines(text: str) -> str:
    """Escape likewise, but leave line breaks and tabs."""
    return "".join(each if each in "\n\t" else printable(each) for each in text)


def say(text: str, *, err: bool = False) -> None:
    """Say something to people, on lines of its own."""
    click.echo(printable_lines(text.removesuffix("\n")), err=err)  # noqa: TID251 - here it is


def write(text: str) -> None:
    """Write what is harmless already, as it is."""
    click.echo(text, nl=False, color=True)  # noqa: TID251 - likewise


class Group(click.Group):
    """A group of commands whose errors are harmless, whatever they quote."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = printable_lines(error.message)
            raise
