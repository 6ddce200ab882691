"""The command line, `install-cni`."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import fields
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from installer.config.kinds import SettingError
from installer.config.settings import DECIDING, Settings, declarations
from installer.manifest.group import manifest
from installer.status.cli import status, takeover
from installer.terminal.options import takes_a_kubeconfig, takes_the_agents_namespace
from installer.terminal.printable import Group, say
from installer.version import release
from plugin.values import ports

if TYPE_CHECKING:
    from installer.config.declaration import Setting
    from installer.config.istio_chart import IstioChart

_Command = Callable[..., None]


class _Value(click.ParamType[object]):
    """A setting's parser, as click wants it."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.metavar
        self._parse = setting.kind.parse_text

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value  # click converts the default twice
        try:
            return self._parse(value)
        except SettingError as error:
            self.fail(str(error), param, ctx)


class _Option(click.Option):
    """An option whose environment variable counts also when it is empty: empty is a value for some settings."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002 - click's signature
        return os.environ.get(str(self.envvar))


def _takes_settings(command: _Command) -> _Command:
    """Give a command all the settings as options; it gets them as one `Settings`, before its own."""
    names = [each.name for each in declarations()]

    def with_settings(**values: Any) -> None:
        command(Settings(**{name: values.pop(name) for name in names}), **values)

    with_settings.__doc__ = command.__doc__
    with_settings.__name__ = command.__name__
    return _with_options(with_settings, names)


def _with_options(command: _Command, names: Collection[str]) -> _Command:
    """Give a command some of the settings as options, under the names that they have everywhere."""
    options = command
    for each in reversed([each for each in declarations() if each.name in names]):
        options = click.option(
            each.flag,
            each.name,
            cls=_Option,
            type=_Value(each),
            default=each.default_text,
            envvar=each.variable,
            show_envvar=True,
            show_default=bool(each.default_text) and not each.shown_default,
            metavar=each.metavar,
            help=each.doc.replace("`", ""),
        )(options)
    return options


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
    """Install the Istio CNI plugin on this node, keep it installed, and redirect mesh pods' traffic to their sidecars.

    Each setting can be an environment variable instead of an option: CNI_BIN_DIR for --cni-bin-dir.
    """


@main.command()
@_takes_settings
def run(settings: Settings) -> None:
    """Run the node agent in the foreground, until SIGTERM or SIGINT.

    Its installation stays in place when it stops, so that you can upgrade it; `install-cni uninstall` removes it.
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
@_takes_settings
def uninstall(settings: Settings, directories: tuple[Path, ...], root: Path) -> None:
    """Uninstall everything that `run` installs from this node, the conflist entry first, the plugin file last.

    Stop the agent first, or it repairs what you remove. Prints a line for each step, and can be repeated. The exit status is 1
    if something could not be removed.
    """
    from installer.host.uninstall import uninstall as take_out  # noqa: PLC0415
    from installer.host.uninstall import uninstall_from  # noqa: PLC0415

    failed = False
    for step in uninstall_from(root, directories) if directories else take_out(settings):
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
@partial(_with_options, names=("kubeconfig",))
def teardown_command(namespace: str, progress_deadline: int, kubeconfig: Path | None) -> None:
    """Delete the DaemonSet, and wait until each agent has uninstalled the plugin from its node and exited.

    The chart's pre-delete hook runs this for `helm uninstall`. Run it before `kubectl delete -f`, which otherwise revokes the
    agents' rights while they stop, so that they leave the plugin installed. The exit status is 1 if agents are not terminated,
    or the API server refuses a request. Nodes that are down are named and skipped.
    """
    import asyncio  # noqa: PLC0415 - it takes as long to import as all the rest

    from installer.teardown import teardown  # noqa: PLC0415 - it loads kopf

    sys.exit(asyncio.run(teardown(namespace, kubeconfig, float(progress_deadline))))


def _takes_a_pod(command: _Command) -> _Command:
    """Give a command the options that explaining a pod takes: the settings that decide about it, and where to find it."""
    command = click.option("-n", "--namespace", help="Namespace of the pod, if NAME has none.")(command)
    command = takes_a_kubeconfig(command)
    command = click.option(
        "--pod-ip",
        "addresses",
        multiple=True,
        type=_Address(),
        metavar="IP",
        help="Address of the pod; can be repeated, in the pod's order. Default: the addresses in its status.",
    )(command)
    file = click.option(
        "-f", "--file", metavar="FILE", help="Read manifests, YAML or JSON, from FILE; - is stdin. Contacts no cluster."
    )
    return file(_with_options(command, DECIDING))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Move the settings that the command line sets, and only these, to `given`."""
    source = click.get_current_context().get_parameter_source
    settings = {name: values.pop(name) for name in DECIDING}
    given = {name: value for name, value in settings.items() if source(name) is ParameterSource.COMMANDLINE}
    return values | {"given": given}


class _Address(click.ParamType[object]):
    name = "IP"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        try:
            return ipaddress.ip_address(value)
        except ValueError:
            self.fail(f"saw {value!r}, expected an IP address", param, ctx)


class _Destination(click.ParamType[object]):
    name = "IP:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        host, _, port = str(value).rpartition(":")
        try:
            address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            (number,) = ports("--to", port)
        except ValueError:
            self.fail(f"saw {value!r}, expected IP:PORT, such as 10.96.0.1:443 or [fd00::1]:443", param, ctx)
        return address, number


@main.command("explain")
@click.argument("target", nargs=-1, metavar="[pod [NAMESPACE/]NAME]")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "json", "yaml", "rules", "dot", "svg")),
    default="table",
    show_default=True,
    help="Output format. rules: as the backend gets them; dot, svg: a picture of the packets' paths.",
)
@_takes_a_pod
def explain_command(target: tuple[str, ...], output: str, **given: Any) -> None:
    """Show whether a pod is redirected and why: the decision, each parameter and setting with its origin, rules, warnings.

    \b
    install-cni explain -f deployment.yaml          any kind with a pod template, as the injector leaves it
    kubectl get pods -o yaml | install-cni explain -f -
    install-cni explain pod shop/web-0              a pod of the cluster
    install-cni explain -f pod.yaml -o svg > pod.svg

    For a pod of a cluster, the settings in force apply: the chart's, refined by the active IstioControlPlane; an option wins
    over both. The output names who set what. With -f, options and defaults apply.

    The exit status is 1 if a pod cannot start because one of its values is not allowed, and if FILE holds no pod and no pod
    template. Kinds without a template are named on stderr.
    """  # noqa: D301 - click's mark
    from installer.explain.command import Options, explain_pods  # noqa: PLC0415

    sys.exit(explain_pods(Options(**_given(given)), target, output))


@main.command("trace")
@click.argument("name", metavar="[NAMESPACE/]NAME")
@click.option("--to", required=True, type=_Destination(), metavar="IP:PORT", help="Destination of the packet.")
@click.option(
    "--from",
    "source",
    type=_Address(),
    metavar="IP",
    help="Source of the packet. Default: the pod's address, or one outside.",
)
@click.option("--uid", type=click.IntRange(0), help="UID of the process in the pod that sends it. Default: 1000.")
@click.option("--gid", type=click.IntRange(0), help="GID of that process. Default: the UID.")
@click.option("--udp", is_flag=True, help="Send a UDP datagram. Default: TCP.")
@click.option("--inbound", is_flag=True, help="Send it from outside. Default if --to is an address of the pod.")
@click.option("--interface", default="eth0", show_default=True, help="Interface of the pod that the packet passes.")
@_takes_a_pod
def trace_command(name: str, **given: Any) -> None:
    """Walk one packet through a pod's rules: each rule that it meets, > before those that match, and where it arrives.

    \b
    install-cni trace shop/web-0 --to 10.96.0.1:443                   what the application sends
    install-cni trace shop/web-0 --to 10.96.0.1:443 --uid 1337        what the sidecar sends
    install-cni trace shop/web -f deployment.yaml --to 10.1.2.3:80 --inbound

    The rules are those of the pod's manifest under the settings in force, as `install-cni explain` shows them. The kernel is
    not read, and with -f no cluster is. If FILE holds several pods or templates of the name, each is walked.
    """  # noqa: D301 - click's mark
    from installer.explain.command import Options, Probe, trace  # noqa: PLC0415

    probe = Probe(**{field.name: given.pop(field.name) for field in fields(Probe)})
    sys.exit(trace(Options(**_given(given)), name, probe))


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
@partial(_with_options, names=("health_address", "log_level", "kubeconfig"))
def controller_command(namespace: str, deadline: int, *, taint_new_nodes: bool, **given: Any) -> None:
    """Run the controller in the foreground: it carries out the active IstioControlPlane, reports its status, and sets taints.

    Of several controllers, the one that holds the Lease istio-cni-controller acts; the others wait. The exit status is 3 if it
    loses the Lease.
    """
    from installer.controller.main import run as control  # noqa: PLC0415 - it takes a second to import
    from installer.controller.reconciler import Options  # noqa: PLC0415

    sys.exit(control(Options(namespace, timedelta(seconds=deadline), taint_new_nodes), **given))


main.add_command(manifest)
main.add_command(status)
main.add_command(takeover)

if __name__ == "__main__":
    main()
