"""The command lines of `install-cni status` and `takeover`: nothing here takes long to import."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from installer.terminal.options import takes_a_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

_UNITS = {"s": 1, "m": 60, "h": 3600}


class _Duration(click.ParamType[float]):
    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        read = re.fullmatch(r"([0-9]{1,6})([smh]?)", str(value))
        if not read:
            self.fail(
                f"saw {value!r}, expected a number of seconds, or one with a unit, such as 90s, 5m or 1h", param, ctx
            )
        return float(int(read[1]) * _UNITS[read[2] or "s"])


@click.command("status")
@click.option(
    "-w",
    "--watch",
    is_flag=True,
    help="Keep watching: redraw a terminal in place; elsewhere print a line for each change.",
)
@click.option("--wait", is_flag=True, help="Wait until everything is healthy, then exit.")
@click.option("--timeout", type=_Duration(), help="With --wait: stop waiting after this time. Default: no limit.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "wide", "json", "yaml")),
    default="table",
    show_default=True,
    help="wide shows all nodes and columns.",
)
@takes_a_kubeconfig
@click.option("-n", "--namespace", help="Namespace of the DaemonSet. Default: search all.")
def status(*, wait: bool, timeout: float | None, **options: Any) -> None:
    """Show the state of the cluster: its nodes, what is wrong, and what to do.

    \b
    install-cni status                       once
    install-cni status -w                    until Ctrl-C
    install-cni status --wait --timeout 5m   in a script, after helm or kubectl
    install-cni status -o json | jq '.nodes[] | select(.healthy | not)'

    The exit status is 0 if everything is healthy, 1 if something is not or a change is on its way, 2 if the cluster could
    not be read, 130 after Ctrl-C.
    """  # noqa: D301 - click's mark
    if timeout is not None and not wait:
        raise click.UsageError("saw --timeout without --wait, expected both")
    from installer.status.command import run  # noqa: PLC0415 - the API client takes a third of a second to import

    sys.exit(run(wait=wait, timeout=timeout, **options))


@click.command("takeover")
@click.option("--check", is_flag=True, help="Required. The command only reads, and prints the commands to run.")
@click.option(
    "-o", "--output", type=click.Choice(("text", "json")), default="text", show_default=True, help="Output format."
)
@takes_a_kubeconfig
def takeover(*, check: bool, output: str, kubeconfig: Path | None, context: str | None) -> None:
    """Check whether this agent can replace Istio's own CNI agent or istio-init, and print the commands to do it and undo it.

    \b
    install-cni takeover --check             before you change anything
    install-cni takeover --check -o json | jq -r '.commands[]'

    The commands carry over the settings of Istio's agent that differ from the defaults here. The exit status is 0 if it can
    be replaced, 1 if something stands in the way, 2 if the cluster could not be read.
    """  # noqa: D301 - click's mark
    if not check:
        raise click.UsageError("saw no --check, expected it: this command only reads, and prints the commands to run")
    from installer.status.takeover_command import run  # noqa: PLC0415 - as above

    sys.exit(run(output, kubeconfig, context))
