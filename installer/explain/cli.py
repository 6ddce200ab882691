"""The command lines of `install-cni explain` and `trace`: nothing here takes long to import."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click
from click.core import ParameterSource

from installer.config.options import with_options
from installer.config.settings import DECIDING
from installer.terminal.options import takes_a_kubeconfig
from plugin.values import ports

_Command = Callable[..., None]


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
    return file(with_options(command, DECIDING))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Move the settings that the command line sets, and only these, to `given`."""
    source = click.get_current_context().get_parameter_source
    settings = {name: values.pop(name) for name in DECIDING}
    given = {name: value for name, value in settings.items() if source(name) is ParameterSource.COMMANDLINE}
    return values | {"given": given}


@click.command("explain")
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
def explain(target: tuple[str, ...], output: str, **given: Any) -> None:
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


@click.command("trace")
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
def trace(name: str, **given: Any) -> None:
    """Follow one packet through a pod's rules: list those that it meets, with > at those that match, and say where it arrives.

    \b
    install-cni trace shop/web-0 --to 10.96.0.1:443                   what the application sends
    install-cni trace shop/web-0 --to 10.96.0.1:443 --uid 1337        what the sidecar sends
    install-cni trace shop/web -f deployment.yaml --to 10.1.2.3:80 --inbound

    The rules are computed from the pod's manifest and the settings, as `install-cni explain` shows them; the pod's network
    namespace is not read. With -f no cluster is contacted. If FILE holds several pods or templates of that name, the packet is
    followed through the rules of each.
    """  # noqa: D301 - click's mark
    from installer.explain.command import Options, Probe, trace_pod  # noqa: PLC0415

    probe = Probe(**{field.name: given.pop(field.name) for field in fields(Probe)})
    sys.exit(trace_pod(Options(**_given(given)), name, probe))
