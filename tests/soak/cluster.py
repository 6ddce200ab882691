"""`python -m tests.soak.cluster`: 110 mesh pods of a real API server, replaced one after the other; then nothing happens.

Each is created, added by the plugin in a new netns, recorded as libcni does, and Running until it is deleted. Printed are
the agent's memory meanwhile, and what it costs while nothing happens; both are also in build/churn.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.calls import PodName
from tests.kubernetes.conftest import define_kinds, node_agent, node_credentials
from tests.race.contenders import OURS, Contender, Pod, installed
from tests.scale.site import meshed_pod
from tests.support.call import ROOT
from tests.support.cluster import Cluster
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.agent import AgentProcess

NODE, NAMESPACE = "node1", "/api/v1/namespaces/default/pods"
PODS = 110
PAUSE = 0.25  # seconds between a pod's end and the next one's start
SAMPLE_EVERY = 30.0  # seconds
ADDRESS = "10.244.0.7"
_STARTED = {"name": "app", "image": "none", "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
RUNNING = {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}], "containerStatuses": [_STARTED]}


@dataclass(frozen=True)
class Sample:
    """The agent at one moment: the pods so far, the seconds since it was ready, and its resident memory in MiB."""

    pods: int
    seconds: float
    mib: float


@dataclass(frozen=True)
class Rest:
    """What an agent costs while nothing happens: percent of a core, and wakeups of its threads per second."""

    percent: float
    wakeups: float


@dataclass(frozen=True)
class Report:
    """What was measured."""

    samples: list[Sample]
    at_rest: Rest


class ChurningNode:
    """A node of a real API server, its agent, and its mesh pods, the oldest first."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.count = 0
        self._cluster = stack.enter_context(Cluster(folder / "cluster"))
        define_kinds(self._cluster)
        self._results = folder / "cache" / "results"
        self._results.mkdir(parents=True)
        (folder / "agent").mkdir()
        self.agent = node_agent(folder / "agent", self._cluster, NODE, node_credentials(self._cluster))
        self.agent.set("cni-cache-dir", folder / "cache")
        stack.enter_context(self.agent)
        self.agent.ready()
        entry = installed(self.agent.conf_dir / "10-k8s.conflist")
        self._plugin = Contender(OURS, self.agent.bin_dir / "istio-cni", entry, folder)
        self._pods: deque[tuple[str, str]] = deque()  # name and sandbox

    def start_pod(self) -> None:
        """Start a pod, as scheduler, runtime and kubelet do.

        Raises:
            RuntimeError: if the plugin fails.
        """
        self.count += 1
        made = self._cluster.admin.create(NAMESPACE, meshed_pod(NODE, self.count))["metadata"]
        pod = Pod(PodName("default", made["name"], made["uid"]), made["annotations"])
        sandbox = f"{self.count:064x}"
        with Netns(self.folder / f"netns{self.count}") as netns:
            call = self._plugin.call("ADD", pod, netns.path)
            replace(call, environment={**call.environment, "CNI_CONTAINERID": sandbox})()
            call.stdin.unlink()
        self._record(sandbox, pod.name)
        self._cluster.admin.merge(f"{NAMESPACE}/{made['name']}/status", {"status": RUNNING})
        self._pods.append((made["name"], sandbox))

    def end_pod(self) -> None:
        """Delete the oldest pod."""
        name, sandbox = self._pods.popleft()
        self._cluster.admin.delete(f"{NAMESPACE}/{name}")
        (self._results / f"k8s-{sandbox}-eth0").unlink()

    def _record(self, sandbox: str, pod: PodName) -> None:
        """Write what libcni keeps of an ADD that has succeeded."""
        named = {"K8S_POD_NAMESPACE": pod.namespace, "K8S_POD_NAME": pod.name, "K8S_POD_UID": pod.uid}
        result = {"cniVersion": "1.0.0", "ips": [{"address": f"{ADDRESS}/24"}]}
        kept = {"kind": "cniCacheV1", "containerId": sandbox, "ifName": "eth0", "networkName": "k8s", "config": ""}
        kept |= {"cniArgs": [*named.items()], "result": result}  # type: ignore[dict-item]
        (self._results / f"k8s-{sandbox}-eth0").write_text(json.dumps(kept))


def churn(node: ChurningNode, seconds: float, pods: int = PODS) -> Iterator[Sample]:
    """Start so many pods, and replace the oldest again and again; sample the agent first, now and then, and last."""
    for _ in range(pods):
        node.start_pod()
    began = sampled = time.monotonic()
    yield _sample(node, 0)
    while (now := time.monotonic()) < began + seconds:
        node.end_pod()
        time.sleep(PAUSE)
        node.start_pod()
        if now >= sampled + SAMPLE_EVERY:
            sampled = now
            yield _sample(node, now - began)
    yield _sample(node, time.monotonic() - began)


def rest(agent: AgentProcess, seconds: float) -> Rest:
    """Do nothing for so long."""
    cpu, woken, began = agent.cpu(), _wakeups(agent), time.monotonic()
    time.sleep(seconds)
    taken = time.monotonic() - began
    return Rest(100 * (agent.cpu() - cpu) / taken, (_wakeups(agent) - woken) / taken)


def _sample(node: ChurningNode, seconds: float) -> Sample:
    return Sample(node.count, round(seconds), round(node.agent.rss() / 2**20, 1))


def _wakeups(agent: AgentProcess) -> int:
    """How often its threads have waited for something and gone on."""
    assert agent.process is not None
    threads = Path(f"/proc/{agent.process.pid}/task").glob("*/status")
    lines = itertools.chain.from_iterable(each.read_text().splitlines() for each in threads)
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))


def run(folder: Path, minutes: tuple[float, float], tell: Callable[[str], object], pods: int = PODS) -> Report:
    """Replace pods, and rest, for so many minutes each."""
    samples = []
    with ExitStack() as stack:
        node = ChurningNode(folder, stack)
        for sample in churn(node, minutes[0] * 60, pods):
            samples.append(sample)
            tell(f"after {sample.seconds:.0f} s and {sample.pods} pods: {sample.mib} MiB")
        at_rest = rest(node.agent, minutes[1] * 60)
        samples.append(_sample(node, sum(minutes) * 60))
    tell(
        f"at rest: {at_rest.percent:.2f} % of a core, {at_rest.wakeups:.1f} wakeups a second; then {samples[-1].mib} MiB"
    )
    return Report(samples, at_rest)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of pods that come and go (default: 60)")
    parser.add_argument("--rest", type=float, default=10.0, help="minutes in which nothing happens (default: 10)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("churn: saw a user who is not root, expected root: network namespaces are made", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="churn-"))
    try:
        report = run(folder, (options.minutes, options.rest), lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (ROOT / "build" / "churn.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    print("written: build/churn.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
