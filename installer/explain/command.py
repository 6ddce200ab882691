"""`install-cni explain` and `install-cni trace`: reads pods, and writes the output."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from installer.documents.reader import read_file
from installer.explain import text
from installer.explain.dot import render_dot
from installer.explain.effective_settings import ENVIRONMENT, EffectiveSettings, Layer, apply_options, layer_settings
from installer.explain.explain import Explanation, explain, status_addresses
from installer.explain.picture import build_picture
from installer.explain.svg import render_svg
from installer.explain.trace import APPLICATION, Packet, build_packet, walk
from installer.pods.manifest import Found, read
from installer.terminal.printable import printable, say, write
from installer.terminal.stdout import style
from installer.terminal.words import first_few
from plugin.pod import ManifestError
from plugin.rules import LO, ruleset
from plugin.ruleset import Protocol
from plugin.values import Gid, Port, Uid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from installer.pods.pod_specs import Other
    from plugin.backend import Backend
    from plugin.values import Address

MOST_NAMED = 10  # of a file, in an error

_POD = re.compile(r"([a-z0-9][-a-z0-9]{0,62})/([a-z0-9][-a-z0-9.]{0,252})")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of both commands: where the pod is, and which of the deciding settings the command line sets.

    Attributes:
        given: values of settings, by name, which override those in force.
        kubeconfig: of the cluster to read.
        context: of the kubeconfig.
        namespace: the pod's, if its name has none.
        file: of manifests; None: read a cluster.
        addresses: the pod's.
    """

    given: Mapping[str, Any]
    kubeconfig: Path | None
    context: str | None
    namespace: str | None
    file: str | None
    addresses: tuple[Address, ...]

    def full(self, name: str) -> str:
        """Return NAMESPACE/NAME of a pod that may be given without its namespace."""
        if self.namespace and "/" in name:
            raise click.UsageError(f"saw {name} and --namespace {self.namespace}, expected one of them")
        return f"{self.namespace}/{name}" if self.namespace else name


def explain_pods(options: Options, target: tuple[str, ...], output: str) -> int:
    """Explain the pods of a file, or one of a cluster.

    Returns:
        The exit status: 1 if there is a pod whose ADD would fail.

    Raises:
        click.ClickException: with what was seen, what was expected and what to do.
    """
    if (target and (len(target) != 2 or target[0] != "pod")) or bool(target) == bool(options.file):
        raise click.UsageError("expected either -f FILE or: pod NAMESPACE/NAME")
    if options.file and options.namespace:
        raise click.UsageError("saw --namespace with -f, expected one of them: manifests say where their pods are")
    if target:
        pod, effective = _from_cluster(options.full(target[1]), options)
        found = [pod]
    else:
        found, effective = _from_file(options.file or "-"), _without_cluster(options)
    explanations = [explain(each, options.addresses, effective) for each in found]
    if output == "rules":
        _warn(effective)
    write(_render(explanations, output, effective.backend))
    return int(any(each.decision == "error" for each in explanations))


def trace_pod(options: Options, name: str, probe: Probe) -> int:
    """Walk one packet through the rules of a pod; of each, if a file has several pods or templates of the name.

    Returns and raises as `explain_pods` does.
    """
    name = options.full(name)
    if options.file:
        found, effective = _named(name, options.file), _without_cluster(options)
    else:
        pod, effective = _from_cluster(name, options)
        found = [pod]
    _warn(effective)
    return max([_traced(each, options, effective, probe, has_others=len(found) > 1) for each in found])


def _traced(found: Found, options: Options, effective: EffectiveSettings, probe: Probe, *, has_others: bool) -> int:
    explanation = explain(found, options.addresses, effective)
    title = f"{explanation.namespace}/{explanation.name}{explanation.maker if has_others else ''}"
    if explanation.redirect is None:
        say(printable(f"{title}: {explanation.decision.upper()}: {explanation.reason}"))
        write(text.render_settings(explanation, style()))
        if explanation.decision == "pass":
            write("The packet passes unchanged: the pod has no rules.")
        return int(explanation.decision == "error")
    packet = probe.packet(options.addresses or status_addresses(found.written.manifest))
    by = (
        f"from outside by {packet.in_interface}"
        if packet.in_interface
        else f"sent by uid {packet.uid}, gid {packet.gid}"
    )
    to = f"[{packet.destination}]" if packet.destination.version == 6 else str(packet.destination)
    say(f"{printable(title)}: {packet.protocol.name} from {packet.source} to {to}:{packet.port}, {by}")
    write(text.render_settings(explanation, style()))
    way = walk(ruleset(explanation.redirect), packet)
    write(text.render_walk(way, effective.backend, packet.family))
    if explanation.by_addresses:
        say(
            f"Which families are redirected depends on the pod's addresses: set them with --pod-ip. {explanation.by_addresses}."
        )
    elif packet.family not in explanation.redirect.families:
        say(f"IPv{packet.family.version} is not redirected for this pod; `install-cni explain` says why.")
    return 0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The packet to trace."""

    to: tuple[Address, Port]
    source: Address | None
    uid: int | None
    gid: int | None
    udp: bool
    inbound: bool
    interface: str

    def packet(self, own: tuple[Address, ...]) -> Packet:
        """Make the packet: to an address of the pod it comes from outside, unless a uid names its sender."""
        address, port = self.to
        if self.source and self.source.version != address.version:
            raise click.UsageError(f"saw --from {self.source} and --to {address}, expected addresses of one family")
        if self.inbound and (self.uid is not None or self.gid is not None):
            raise click.UsageError(
                "saw --inbound with --uid or --gid, expected one of them: a packet from outside has no uid or gid"
            )
        protocol = Protocol.UDP if self.udp else Protocol.TCP
        if self.inbound or (self.uid is None and self.gid is None and address in own):
            source = self.source or ipaddress.ip_address("192.0.2.1" if address.version == 4 else "2001:db8::1")
            return Packet(source=source, destination=address, port=port, protocol=protocol, in_interface=self.interface)
        uid = APPLICATION if self.uid is None else Uid(self.uid)
        packet = build_packet(own, address, port, uid, None if self.gid is None else Gid(self.gid))
        interface = LO if packet.out_interface == LO else self.interface
        return replace(packet, protocol=protocol, source=self.source or packet.source, out_interface=interface)


def _render(explanations: Sequence[Explanation], output: str, backend: Backend) -> str:
    match output:
        case "json":
            return text.as_json(explanations)
        case "yaml":
            return text.as_yaml(explanations)
        case "rules":
            return text.render_rules(explanations, backend)
        case "dot":
            return render_dot(map(build_picture, explanations))
        case "svg":
            return render_svg(map(build_picture, explanations))
    return text.render_table(explanations, style())


def _from_file(name: str) -> list[Found]:
    """Read the pods of a file, `-` for stdin; objects without pods are named on stderr.

    Raises:
        click.ClickException: if none is in it, or it cannot be read.
    """
    found, unknown = [], []
    try:
        data = read_file(name)
        for each in read(data, is_json=data.lstrip()[:1] in (b"{", b"[")):
            if isinstance(each, Found):
                found.append(each)
                continue
            say(printable(_describe_other(each)), err=True)
            if not each.is_known:
                unknown.append(f"{each.kind} {each.name}")
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror}") from error
    except ManifestError as error:
        raise click.ClickException(f"{name}: {error}") from error
    if not found:
        what = f"; unknown: {first_few(unknown, MOST_NAMED)}" if unknown else ""
        raise click.ClickException(
            printable(f"{name}: saw no pod and no resource that creates pods, expected one{what}")
        )
    return found


def _describe_other(other: Other) -> str:
    """Describe an object that is skipped; if it may still make pods, with what to do."""
    if other.is_known:
        return f"skipped: {other.kind} {other.name} creates no pods"
    if other.refers_to:
        instead = f"its pods come from {other.refers_to}: explain that one"
    else:
        instead = "if it creates pods, explain one of them: install-cni explain pod NAMESPACE/NAME"
    return f"unknown: {other.kind} {other.name} has no pod template (a spec with containers); {instead}"


def _named(name: str, file: str) -> list[Found]:
    found = _from_file(file)
    named = [each for each in found if f"{each.pod.namespace}/{each.pod.name}" == name]
    if not named:
        names = dict.fromkeys(f"{each.pod.namespace}/{each.pod.name}" for each in found)
        raise click.ClickException(printable(f"{file}: saw {first_few([*names], MOST_NAMED)}, expected {name}"))
    return named


def _without_cluster(options: Options) -> EffectiveSettings:
    """Return the settings without a cluster: options over the environment."""
    return apply_options(layer_settings([Layer(ENVIRONMENT, os.environ)]), options.given)


def _warn(effective: EffectiveSettings) -> None:
    """Print the warnings on stderr."""
    for each in effective.warnings:
        say(f"warning: {printable(each)}", err=True)


def _from_cluster(name: str, options: Options) -> tuple[Found, EffectiveSettings]:
    matched = _POD.fullmatch(name)
    if not matched:
        seen = f"saw {name!r}, expected NAMESPACE/NAME of a pod, such as shop/web-0, or its name and --namespace"
        raise click.ClickException(seen)
    from installer.explain.cluster import read_pod_and_settings  # noqa: PLC0415 - the API client takes a third of a second to import

    return read_pod_and_settings(options.kubeconfig, options.context, matched[1], matched[2], options.given)
