"""One API server that holds the pods of a node, and both agents of that node, each with folders of its own."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from tests.bench.calls import PodName
from tests.bench.conflist import stomp
from tests.chart.contained import CONFLIST, apply, contained, forwarded_api
from tests.chart.contained import NAMESPACE as ISTIO_NAMESPACE
from tests.chart.istio_chart import IstiosChart
from tests.kubernetes.conftest import define_kinds, node_agent, node_credentials
from tests.programs.lots import ISTIO
from tests.race.contenders import OURS, REFERENCE, REFERENCE_NFT, Contender, Pod, installed, verify
from tests.scale.site import meshed_pod
from tests.support.cluster import Cluster
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.bench.calls import Call
    from tests.support.agent import AgentProcess

NODE = "node1"
EXCLUDED = Pod(PodName("kube-system", "excluded", "0a8d6e1c-0000-4000-8000-000000000000"), {})
POD_NETWORK = """\
link set lo up
link add eth0 type veth peer name host
address add 10.244.0.7/24 dev eth0
address add fd00:244::7/64 dev eth0 nodad
link set eth0 up
link set host up
"""
SLOWEST_START = 60.0  # seconds
SETTLING = 1.0  # seconds: the kernel is still busy with the netns that were freed and made


class Stage:
    """All that runs, for as long as the race takes."""

    def __init__(self, folder: Path, pods: int) -> None:
        """Prepare: a folder, whose path is short, as sockets are in it, and how many mesh pods the node has."""
        self.folder = folder
        self._count = pods
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self.agents: dict[str, AgentProcess] = {}
        self.contenders: list[Contender] = []
        self.meshed: list[Pod] = []

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.cluster = stack.enter_context(
                Cluster(self.folder / "cluster", options=(), environment={})
            )  # as clusters run it
            self.meshed = [self._create(meshed_pod(NODE, number)) for number in range(self._count)]
            container = {"name": "app", "image": "none"}
            self.plain = self._create({"metadata": {"name": "plain"}, "spec": {"containers": [container]}})
            self._start_ours()
            self._start_reference()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def conflists(self) -> dict[str, Path]:
        """The conflist of each agent."""
        return {name: agent.conf_dir / CONFLIST for name, agent in self.agents.items()}

    @contextmanager
    def calls(
        self, command: str, pods: Sequence[Pod], who: Sequence[Contender] = (), *, redirected: bool = False
    ) -> Iterator[list[list[Call]]]:
        """Make a call of each contender for each pod, each in a new netns; look at all netns afterwards.

        Args:
            command: ADD or DEL.
            pods: a round for each.
            who: if not all.
            redirected: what the netns have afterwards.

        Raises:
            RuntimeError: if a netns has not what it should.
        """
        with ExitStack() as stack:
            rounds: list[list[Call]] = []
            made: list[tuple[Contender, Netns]] = []
            for pod in pods:
                own = [(each, self._netns(stack)) for each in who or self.contenders]
                rounds.append([each.call(command, pod, netns.path) for each, netns in own])
                made += own
            time.sleep(SETTLING)
            yield rounds
            for contender, netns in made:
                verify(contender.name, netns, redirected=redirected)

    def _netns(self, stack: ExitStack) -> Netns:
        """Make the netns of a pod as the plugins before ours leave it."""
        netns = stack.enter_context(Netns(self.folder / f"netns{next(self._numbers)}"))
        subprocess.run([*netns.entered, "/usr/sbin/ip", "-batch", "-"], input=POD_NETWORK, text=True, check=True)
        return netns

    def _create(self, manifest: dict[str, Any]) -> Pod:
        manifest["spec"]["nodeName"] = NODE
        made: Any = self.cluster.core.create_namespaced_pod("default", manifest)  # type: ignore[arg-type]
        return Pod(PodName("default", made.metadata.name, made.metadata.uid), made.metadata.annotations or {})

    def _start_ours(self) -> None:
        define_kinds(self.cluster)
        folder = self.folder / "ours"
        folder.mkdir()
        agent = node_agent(folder, self.cluster, NODE, node_credentials(self.cluster))
        stomp(folder / "conf" / CONFLIST)
        self._enter(OURS, agent)
        agent.ready(SLOWEST_START)
        entry = installed(folder / "conf" / CONFLIST)
        self.contenders.append(Contender(OURS, folder / "bin" / "istio-cni", entry, self.folder))

    def _start_reference(self) -> None:
        folder = self.folder / "ref"
        plugin = folder / "image"
        plugin.mkdir(parents=True)
        shutil.copy2(ISTIO.folder / "istio-cni", plugin)
        network = self._stack.enter_context(Netns(folder / "pod"))
        self._stack.enter_context(forwarded_api(network, self.cluster))
        self.cluster.kubectl("create", "namespace", ISTIO_NAMESPACE)
        chart = IstiosChart(self.folder, {})
        apply(self.cluster, chart)
        program = [str(ISTIO.folder / "install-cni"), "--log_target=stderr"]
        agent = contained(folder, network, self.cluster, NODE, chart, program=program, image=[("/opt/cni/bin", plugin)])
        conflist = folder / "conf" / CONFLIST
        stomp(conflist)
        self._enter(REFERENCE, agent)
        until(lambda: installed(conflist), SLOWEST_START, f"{conflist} has the entry; the log is {agent.log}")
        entry = installed(conflist) | {"cni_agent_run_dir": str(folder / "run" / "istio-cni")}
        iptables = Contender(REFERENCE, folder / "bin" / "istio-cni", entry, self.folder)
        self.contenders += [iptables, replace(iptables, name=REFERENCE_NFT, entry=entry | {"native_nftables": True})]

    def _enter(self, name: str, agent: AgentProcess) -> None:
        self.agents[name] = self._stack.enter_context(agent)
