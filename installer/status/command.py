"""`install-cni status`: read the cluster, and write its status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from installer.status import data, text
from installer.status.access import Access, UnreachableError
from installer.status.collect import read_answers
from installer.status.follow import Watching
from installer.status.show import showing
from installer.status.summary import summarize
from installer.terminal.printable import write
from installer.terminal.stdout import style

if TYPE_CHECKING:
    from pathlib import Path

INTERRUPTED = 130  # as a shell reports SIGINT, so that an interrupted script does not go on


class CannotAskError(click.ClickException):
    """The API server cannot be reached."""

    exit_code = 2


def run(
    output: str,
    *,
    watch: bool,
    wait: bool,
    timeout: float | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
) -> int:
    """Run the command, and return the exit status.

    Raises:
        CannotAskError: with what was seen, what was expected and what to do.
    """
    try:
        access = Access(kubeconfig, context)
        if watch or wait:
            with showing(output) as show:
                return Watching(access, namespace).run(show, until_healthy=wait, timeout=timeout)
        found = summarize(read_answers(access, namespace), datetime.now(UTC))
    except UnreachableError as error:
        raise CannotAskError(str(error)) from error
    except KeyboardInterrupt:
        return INTERRUPTED
    match output:
        case "json":
            write(data.as_json(found))
        case "yaml":
            write(data.as_yaml(found))
        case _:
            write(text.render_status(found, datetime.now(UTC), style(), wide=output == "wide"))
    return found.health.exit_status
