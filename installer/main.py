"""The command line, `install-cni`."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from installer.config.kinds import SettingError
from installer.config.options import takes_settings, with_options
from installer.explain.cli import explain, trace
from installer.manifest.cli import manifest
from installer.status.cli import status, takeover
from installer.terminal.options import takes_the_agents_namespace
from installer.terminal.printable import Group, say
from installer.version import release

if TYPE_CHECKING:
    from installer.config.istio_chart import IstioChart
    from installer.config.settings import Settings


class _Main(Group):
    """The commands, and the command line of Istio's own chart, which has none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line."""
        if args and not args[0].startswith("--log_"):
            return super().parse_args(ctx, args)  # as usual: without an import
        from installer.config.istio_chart import is_istios  # noqa: PLC0415

        return super().parse_args(ctx, ["run-in-istio-chart", *args] if is_istios(args, os.environ) else args)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(release(), prog_name="install-cni")
def main() -> None:
    """Run the node agent of the Istio CNI plugin, and see, explain, generate and remove what it installs.

    Each setting can be an environment variable instead of an option: CNI_BIN_DIR for --cni-bin-dir.
    """


@main.command()
@takes_settings
def run(settings: Settings) -> None:
    """Install the plugin on this node, keep it installed, and redirect mesh pods, in the foreground until SIGTERM or SIGINT.

    When it stops, the plugin stays installed for the next agent; `install-cni uninstall` removes it. With --daemonset it
    uninstalls the plugin if that DaemonSet is deleted or no longer selects the node.
    """
    _run(settings)


@main.command(
    "run-in-istio-chart", hidden=True, add_help_option=False, context_settings={"ignore_unknown_options": True}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_in_istio_chart(arguments: tuple[str, ...]) -> None:
    """Run the node agent with the command line and the environment of Istio's own chart."""
    from installer.config.istio_chart import MOUNTS, translate  # noqa: PLC0415

    try:
        chart = translate(arguments, os.environ, {each for each in MOUNTS if Path(each).is_dir()})
    except SettingError as error:
        raise click.ClickException(str(error)) from None
    _run(chart.settings, chart)


def _run(settings: Settings, chart: IstioChart | None = None) -> None:
    from installer.agent import main as agent  # noqa: PLC0415 - kopf takes half a second to import, --help need not wait for it
    from installer.host.socket_dir import ForeignDirectoryError  # noqa: PLC0415

    try:
        agent.run(settings, chart)
    except ForeignDirectoryError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option(
    "--from",
    "directories",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Uninstall only from this directory, a former cniConfDir or cniBinDir that the container runtime no longer uses; "
    "can be repeated. The agent keeps running, and its own directories stay as they are.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    metavar="DIR",
    help="Root of the node's file system, for --from: /host in a pod of `kubectl debug node/…`.",
)
@takes_settings
def uninstall(settings: Settings, directories: tuple[Path, ...], root: Path) -> None:
    """Uninstall everything that `run` installs from this node, the conflist entry first, the plugin file last.

    Stop the agent first, or it repairs what you remove. Prints a line for each step, and can be repeated. The exit status is 1
    if something could not be removed.
    """
    from installer.host.uninstall import uninstall as uninstall_all  # noqa: PLC0415
    from installer.host.uninstall import uninstall_from  # noqa: PLC0415

    failed = False
    for step in uninstall_from(root, directories) if directories else uninstall_all(settings):
        say(step.text, err=step.failed)
        failed |= step.failed
    sys.exit(1 if failed else 0)


@main.command("teardown")
@takes_the_agents_namespace
@click.option(
    "--progress-deadline",
    type=click.IntRange(1),
    default=120,
    show_default=True,
    envvar="PROGRESS_DEADLINE_SECONDS",
    show_envvar=True,
    metavar="SECONDS",
    help="Give up when nothing has changed for this time.",
)
@partial(with_options, names=("kubeconfig",))
def teardown_command(namespace: str, progress_deadline: int, kubeconfig: Path | None) -> None:
    """Delete the DaemonSet, and wait until each agent has uninstalled the plugin from its node and exited.

    The chart's pre-delete hook runs this for `helm uninstall`. Run it before `kubectl delete -f`, which otherwise revokes the
    agents' rights while they stop, so that they leave the plugin installed. The exit status is 1 if agents are not terminated,
    or the API server refuses a request. Nodes that are down are named and skipped.
    """
    import asyncio  # noqa: PLC0415 - it takes as long to import as all the rest

    from installer.teardown import teardown  # noqa: PLC0415 - it loads kopf

    sys.exit(asyncio.run(teardown(namespace, kubeconfig, float(progress_deadline))))


@main.command("controller")
@takes_the_agents_namespace
@click.option(
    "--deadline",
    type=click.IntRange(0),
    default=300,
    show_default=True,
    envvar="DEADLINE",
    show_envvar=True,
    metavar="SECONDS",
    help="How long the deletion of an IstioControlPlane waits for nodes to uninstall.",
)
@click.option(
    "--taint-new-nodes",
    is_flag=True,
    envvar="TAINT_NEW_NODES",
    show_envvar=True,
    help="Set the taint cni.istio.io/not-ready on new nodes.",
)
@partial(
    with_options,
    names=("health_address", "log_level", "kubeconfig"),
    docs={
        "health_address": "Address that serves /healthz, /readyz and /metrics. Empty: none. Port 0: any free port.",
        "log_level": "Log level of the controller: panic, fatal, error, warn, info or debug.",
    },
)
def controller_command(namespace: str, deadline: int, *, taint_new_nodes: bool, **given: Any) -> None:
    """Run the controller in the foreground: it carries out the active IstioControlPlane, reports its status, and sets taints.

    Of several controllers, the one that holds the Lease istio-cni-controller acts; the others wait. The exit status is 3 if it
    loses the Lease.
    """
    from installer.controller.main import run as control  # noqa: PLC0415 - it takes a second to import
    from installer.controller.reconciler import Options  # noqa: PLC0415

    sys.exit(control(Options(namespace, timedelta(seconds=deadline), taint_new_nodes), **given))


main.add_command(explain)
main.add_command(manifest)
main.add_command(status)
main.add_command(takeover)
main.add_command(trace)

if __name__ == "__main__":
    main()
