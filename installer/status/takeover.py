"""What it takes to replace Istio's own CNI agent, or istio-init, with this agent: for `install-cni takeover --check`. Pure."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from installer.status import istio_agent
from installer.status.data import plain_findings
from installer.status.grants import grant_commands
from installer.status.model import Finding, Severity, Unavailable
from installer.status.takeover_settings import carry_over, container
from installer.status.text import findings_lines
from installer.terminal.printable import printable
from installer.terminal.words import counted, listed
from plugin.keys import INIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from installer.status.model import Object
    from installer.terminal.tables import Style

INJECTED = "security.istio.io/tlsMode"  # a label that the injector puts on each pod with a sidecar
_OWN_RELEASE = f"helm install istio-cni {istio_agent.CHART} --namespace kube-system {istio_agent.IMAGE}"
_ISTIOD = "helm upgrade istiod istio/istiod --namespace istio-system --reuse-values --set pilot.cni.enabled="


@dataclass(frozen=True)
class Agent:
    """A DaemonSet of Istio's own agent.

    Attributes:
        image: its image; empty: unknown.
        installer: what has installed it, in words.
        values: the values of our chart that carry its settings over, below `cni`, where they differ from the defaults.
    """

    namespace: str
    image: str
    installer: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class TakeOver:
    """What is there, and what to run.

    Attributes:
        summary: a sentence.
        agents: Istio's own agents.
        init: the number of pods that istio-init redirects, by namespace; None: unknown.
        others: the number of other pods with a sidecar; None: unknown.
        findings: errors stand in the way.
        commands: to replace Istio's agent, in order.
        back: to bring it back.
    """

    summary: str
    agents: tuple[Agent, ...]
    init: Mapping[str, int] | None
    others: int | None
    findings: tuple[Finding, ...]
    commands: tuple[str, ...]
    back: tuple[str, ...]

    @property
    def is_possible(self) -> bool:
        """Whether nothing stands in the way."""
        return all(each.severity is Severity.INFO for each in self.findings)


def plan(
    daemonsets: Sequence[Object] | Unavailable,
    data: Mapping[tuple[str, str], Mapping[str, str] | Unavailable],
    pods: Sequence[Object] | Unavailable,
) -> TakeOver:
    """Find out what stands in the way, and which commands to run.

    `data` has the ConfigMaps of Istio's agents, by namespace and name; `pods` are those with the label `INJECTED`.
    """
    findings = [
        Finding(Severity.UNKNOWN, f"Cannot list {each.resource} ({each.message})", grant_commands([each]))
        for each in (daemonsets, pods)
        if isinstance(each, Unavailable)
    ]
    known = () if isinstance(daemonsets, Unavailable) else daemonsets
    istios, own = istio_agent.istios(known), istio_agent.ours(known)
    agents = []
    for each in istios:
        values, found = carry_over(each, data)
        namespace, image = str(each["metadata"]["namespace"]), str(container(each).get("image") or "")
        agents.append(Agent(namespace, image, istio_agent.installer(each), values))
        findings += found
    for each in istios if own else istios[1:]:
        where = istio_agent.title(each)
        message = f"Istio's own CNI node agent in {where} is one of several agents, expected one in the cluster"
        findings.append(Finding(Severity.ERROR, message, istio_agent.how_to_remove(each)))
    init, others = _count_pods(pods)
    if init:
        message = (
            f"{counted(init.total(), 'pod')} ({listed([f'{name} {number:,}' for name, number in sorted(init.items())])}) "
            f"have {INIT}, which redirects them itself: they keep its rules until they are replaced"
        )
        findings.append(Finding(Severity.INFO, message))
    commands, back = _commands(istios, own, init, agents)
    result = TakeOver("", tuple(agents), init, others, tuple(findings), commands, back)
    return replace(result, summary=_summary(result, own))


def _summary(found: TakeOver, own: Sequence[Object]) -> str:
    if not found.is_possible:
        return "Something stands in the way of a take-over."
    if found.agents:
        return f"Istio's own CNI node agent in {found.agents[0].namespace} can be taken over."
    if found.init:
        return f"The pods that {INIT} redirects can be taken over."
    return "There is nothing to take over: " + (
        "this agent is installed." if own else "the cluster has no agent of Istio's."
    )


def _commands(
    istios: Sequence[Object], own: Sequence[Object], init: Mapping[str, int] | None, agents: Sequence[Agent]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    commands, back = list[str](), list[str]()
    if istios and not own:
        options = [
            f"--set-json {shlex.quote(f'cni.{key}={json.dumps(value)}')}" for key, value in agents[0].values.items()
        ]
        commands += istio_agent.commands_to_replace(istios[0], options)
        back += istio_agent.commands_to_return(istios[0])
    elif not own:
        commands += [istio_agent.DEFINITIONS, _OWN_RELEASE]
        back.append("helm uninstall istio-cni --namespace kube-system")
    if (
        init
    ):  # the injector changes over last, and back first: between the two, each new pod has something that redirects it
        restarts = [
            f"kubectl --namespace {name} rollout restart deployments,statefulsets,daemonsets" for name in sorted(init)
        ]
        commands += [f"{_ISTIOD}true", *restarts]
        back[:0] = [f"{_ISTIOD}false", *restarts]
    return tuple(commands), tuple(back)


def _count_pods(pods: Sequence[Object] | Unavailable) -> tuple[Counter[str] | None, int | None]:
    if isinstance(pods, Unavailable):
        return None, None
    init = Counter[str]()
    for pod in pods:
        if any(each.get("name") == INIT for each in (pod.get("spec") or {}).get("initContainers") or ()):
            init[str(pod["metadata"]["namespace"])] += 1
    return init, len(pods) - init.total()


def as_text(found: TakeOver, style: Style) -> str:
    """Write it for people; commands stay on lines of their own."""

    def lines() -> Iterator[str]:
        yield from style.wrapped(found.summary)
        for each in found.agents:
            values = ", ".join(f"cni.{key}={json.dumps(value)}" for key, value in each.values.items())
            yield from style.wrapped(
                f"{each.namespace} ({each.image or 'unknown image'}), installed by {each.installer}",
                "Agent:    ",
                " " * 10,
            )
            yield from style.wrapped(values or "as the defaults here", "Settings: ", " " * 10)
        if found.init is not None and found.others is not None:
            total = sum(found.init.values())
            counts = f"{found.others:,} with a sidecar that a CNI agent redirects, {total:,} that {INIT} redirects"
            yield from style.wrapped(counts, "Pods:     ", " " * 10)
        yield from findings_lines(found.findings, style)
        for title, commands in (("To take over:", found.commands), ("To go back:", found.back)):
            if commands and found.is_possible:
                yield from ("", title, *(f"    {printable(each)}" for each in commands))

    return "\n".join(lines()) + "\n"


def plain(found: TakeOver) -> dict[str, Any]:
    """Convert to types of JSON; unknown values are null."""
    return {
        "possible": found.is_possible,
        "summary": found.summary,
        "agents": [vars(each) for each in found.agents],
        "pods": {"istioInit": found.init, "others": found.others},
        "findings": plain_findings(found.findings),
        "commands": found.commands if found.is_possible else (),
        "back": found.back if found.is_possible else (),
    }
