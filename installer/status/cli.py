"""The command line of `install-cni status`: nothing here takes long to import."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from installer.status.options import Options
from installer.terminal.options import takes_a_kubeconfig

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
def status(**given: Any) -> None:
    """Show the state of the cluster: its nodes, what is wrong, and what to do.

    \b
    install-cni status                       once
    install-cni status -w                    until Ctrl-C
    install-cni status --wait --timeout 5m   in a script, after helm or kubectl
    install-cni status -o json | jq '.nodes[] | select(.healthy | not)'

    The exit status is 0 if everything is healthy, 1 if something is not or a change is on its way, 2 if the cluster could
    not be read, 130 after Ctrl-C.
    """  # noqa: D301 - click's mark
    options = Options(**given)
    if options.timeout is not None and not options.wait:
        raise click.UsageError("saw --timeout without --wait, expected both")
    from installer.status.command import run  # noqa: PLC0415 - the API client takes a third of a second to import

    sys.exit(run(options))
