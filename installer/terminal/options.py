"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., None]


def takes_a_kubeconfig(command: Command) -> Command:
    """Give a command the options with which people say how to reach their cluster: `kubeconfig` and `context`."""
    command = click.option("--context", help="Kubeconfig context. Default: its current-context.")(command)
    return click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, or the service account of the pod that it runs in.",
    )(command)


def takes_the_agents_namespace(command: Command) -> Command:
    """Give a command that runs beside the agents their namespace, which its pod knows."""
    return click.option(
        "-n",
        "--namespace",
        required=True,
        envvar="POD_NAMESPACE",
        show_envvar=True,
        metavar="NAME",
        help="Namespace of the DaemonSet istio-cni-node.",
    )(command)
