"""The command line of `install-cni manifest`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from installer.terminal.printable import printable_lines, say, write

_KUBE_VERSION = re.compile(r"v?[0-9]+\.[0-9]+(\.[0-9]+)?([-+][0-9A-Za-z.+-]+)?")
_Command = Callable[..., None]
_FILE = click.Path(path_type=Path)


class _KubeVersion(click.ParamType[str]):
    name = "VERSION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _KUBE_VERSION.fullmatch(value):
            self.fail(f"saw {value!r}, expected a version of Kubernetes, such as 1.30 or v1.30.4-gke.1", param, ctx)
        return str(value)


def _program(name: str) -> Callable[[_Command], _Command]:
    return click.option(
        f"--{name}",
        type=_FILE,
        envvar=name.upper(),
        show_envvar=True,
        metavar="FILE",
        help=f"Path of the program {name}. Default: the first on PATH.",
    )


_RESOURCE = (
    click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        metavar="FILE",
        help="An IstioControlPlane, YAML or JSON; - is stdin. May be repeated: a later file overrides an earlier one.",
    ),
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="PATH=VALUE",
        help="A field of its spec, as helm reads it: cni.enabled=true, values.cni.cniBinDir=/x. May be repeated.",
    ),
    click.option(
        "--set-string",
        "set_strings",
        multiple=True,
        metavar="PATH=VALUE",
        help="Like --set, but the value is text: values.cni.podAnnotations.a=true.",
    ),
    click.option(
        "--platform", metavar="NAME", help="The kind of cluster, as the chart's value platform: gke, eks, k3s ..."
    ),
    click.option(
        "-n",
        "--namespace",
        default="istio-system",
        show_default=True,
        metavar="NAME",
        help="Namespace of the agent, and of a resource that names none.",
    ),
    click.option("--create-namespace", is_flag=True, help="Include the namespaces in the manifests."),
    click.option("--chart", type=_FILE, metavar="DIR", help="Use this chart. Default: that of this release."),
    click.option(
        "--kube-version",
        type=_KubeVersion(),
        help="Version of the cluster, such as 1.30; what it lacks is left out. Default: diff and apply ask the cluster, "
        "generate takes helm's default.",
    ),
    _program("helm"),
)


def _takes_a_resource(command: _Command) -> _Command:
    """Give a command the options that define what to install."""
    for option in reversed(_RESOURCE):
        command = option(command)
    return command


def _takes_a_cluster(command: _Command) -> _Command:
    """Give a command the options that select the cluster."""
    for option in (
        click.option("--context", metavar="NAME", help="Kubeconfig context."),
        click.option("--kubeconfig", metavar="FILE", help="Kubeconfig file, as kubectl takes it."),
        _program("kubectl"),
    ):
        command = option(command)
    return command


@click.group()
def manifest() -> None:
    """Turn an IstioControlPlane into manifests for kubectl. Needs helm to render them, and leaves no release in the cluster."""


@manifest.command("generate")
@_takes_a_resource
def generate_command(**given: Any) -> None:
    """Write what the chart installs for an IstioControlPlane, and the resource itself last.

    \b
    install-cni manifest generate -f cr.yaml > istio-cni.yaml
    install-cni manifest generate --set values.cni.cniBinDir=/home/kubernetes/bin --platform gke

    For a resource with cni.enabled=false, write only the resource and its definition: running agents then remove the plugin.

    The exit status is 1 if the resource is invalid; stderr names each field.
    """  # noqa: D301 - click's mark
    from installer.manifest.command import Options, generate  # noqa: PLC0415

    with _failing(1):
        write(generate(Options(**given)))


@manifest.command("diff")
@_takes_a_resource
@_takes_a_cluster
def diff_command(kubectl: Path | None, kubeconfig: str | None, context: str | None, **given: Any) -> None:
    """Show what `apply` would change in the cluster; nothing is changed.

    As with `kubectl diff`, the exit status is 0 if nothing would change, 1 if something would, 2 on an error.
    """
    from installer.manifest.command import Options, difference  # noqa: PLC0415

    with _failing(2):
        found = difference(Options(**given), kubectl, _where(kubeconfig, context))
    write(printable_lines(found))
    sys.exit(1 if found else 0)


@manifest.command("apply")
@_takes_a_resource
@_takes_a_cluster
def apply_command(kubectl: Path | None, kubeconfig: str | None, context: str | None, **given: Any) -> None:
    """Apply what `generate` writes with kubectl: the definitions first, so that one run suffices."""
    from installer.manifest.command import Options, apply  # noqa: PLC0415

    with _failing(1):
        for output in apply(Options(**given), kubectl, _where(kubeconfig, context)):
            write(printable_lines(output))


@contextmanager
def _failing(status: int) -> Iterator[None]:
    """Print what fails, and exit with this status."""
    from installer.manifest.command import FAILURES  # noqa: PLC0415

    try:
        yield
    except FAILURES as error:
        say(f"Error: {error}", err=True)
        sys.exit(status)


def _where(kubeconfig: str | None, context: str | None) -> list[str]:
    return [f"--{name}={value}" for name, value in (("kubeconfig", kubeconfig), ("context", context)) if value]
