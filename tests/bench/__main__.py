"""`make bench`: prints a table and writes build/bench.json."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin.backend import Backend
from tests.bench.calls import (
    Call,
    PodName,
    at_once,
    call_for_pod,
    call_for_version,
    in_turns,
    machine,
    percentile,
    write_config,
)
from tests.bench.conflist import repair, stomp
from tests.bench.floor import apply_alone, compiled
from tests.support.agent import AgentProcess
from tests.support.call import FROZEN, ROOT, UNACCELERATED
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUNS = 100
RUNS_BY_BACKEND = 50
BURSTS = 3
PODS = 110
UNKNOWN = PODS + 1  # the number of a pod that has no manifest, as it is not meshed
STOMPS = 200
STATUS = "sidecar.istio.io/status"
TRAFFIC = "traffic.sidecar.istio.io/"
PORTS = TRAFFIC + "includeInboundPorts"
LARGEST = {  # the largest pod that is realistic
    PORTS: ",".join(str(8000 + number) for number in range(64)),
    TRAFFIC + "includeOutboundIPRanges": ",".join(f"10.{number}.0.0/16,fd00:{number}::/32" for number in range(32)),
}


class Bench:
    """One agent, its pods' network namespaces, and the calls of a runtime."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.conflist = folder / "conf" / "10-k8s.conflist"
        for name in ("conf", "pods"):
            (folder / name).mkdir()
        stomp(self.conflist)
        self.manifests()
        self.floor = compiled(folder)
        self._stack = stack
        self._netns = 0
        self.agent = self.start_agent(Backend.NFT, folder)

    def start_agent(self, backend: Backend, folder: Path) -> AgentProcess:
        """Start an agent that writes rules by a backend, for a node of its own: the files below a folder."""
        options: dict[str, str | Path] = {"pods-from": self.folder / "pods", "log-level": "error"}
        options |= {"redirect-backend": backend.value}
        for name in ("conf", "bin"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if folder != self.folder:
            shutil.copy(self.conflist, folder / "conf")
        agent = AgentProcess(folder, conf_dir=folder / "conf", bin_dir=folder / "bin", options=options)
        self._stack.enter_context(agent)
        print(agent.ready())
        return agent

    def manifests(self) -> None:
        """Write the pods: dual stack, so that both families are programmed."""
        environment = [{"name": "ISTIO_DUAL_STACK", "value": "true"}]
        for number in range(PODS + 1):
            traffic = LARGEST if number == PODS else {PORTS: "*"}
            pod = {
                "metadata": {
                    "name": f"pod{number}",
                    "namespace": "bench",
                    "uid": f"uid-{number}",
                    "annotations": {STATUS: "{}"} | traffic,
                },
                "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy", "env": environment}]},
            }
            (self.folder / "pods" / f"{number}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Pod"} | pod))

    def config(self, name: str, **more: Any) -> Path:
        """Write what libcni hands the plugin, about 2 KB; `more` goes over it."""
        entry = {
            "agentSocket": str(self.agent.socket),
            "exclude_namespaces": ["istio-system", "kube-system"],
            "type": "istio-cni",
        }
        return write_config(self.folder / f"{name}.stdin", entry | more)

    def netns(self) -> Path:
        """Make the netns of a new pod: rules that were there before would have to be taken out."""
        self._netns += 1
        return self._stack.enter_context(Netns(self.folder / f"netns{self._netns}")).path

    def call(self, executable: Path, stdin: Path, number: int = 0, command: str = "ADD", *, uid: bool = True) -> Call:
        """Make the call of a runtime for one of the pods, in a netns of its own; runtimes pass its uid."""
        pod = PodName("bench", f"pod{number}", f"uid-{number}" if uid else "")
        return call_for_pod(executable, command, pod, self.netns(), stdin)

    def repairs(self, pause: float, times: int) -> list[float]:
        """Stomp the conflist so often: milliseconds from our rename to the agent's."""
        measured = []
        for _ in range(times):
            time.sleep(pause)
            measured.append(repair(self.conflist))
        return measured


def rows(bench: Bench) -> Iterator[dict[str, Any]]:
    """Measure, row by row."""
    mesh = bench.config("mesh")
    annotated = {"io.kubernetes.cri.pod-annotations": {"app": "plain"}}
    outside = bench.config("outside", runtimeConfig=annotated)
    for what, stdin, pod in (("ADD, meshed pod, v4+v6", mesh, 0), ("ADD, pod outside the mesh", outside, UNKNOWN)):
        files = (FROZEN, bench.floor, UNACCELERATED)
        ours, floor, python = in_turns([[bench.call(file, stdin, pod) for file in files] for _ in range(RUNS)])
        yield _times(what, ours, "p50 <= 1.1 x the static C client") | _to(ours, floor, "the C client")
        yield _times(f"{what}: static C client", floor)
        yield _times(f"{what}: without accelerator", python) | _to(python, ours, "with it")
    yield from other_forms(bench, mesh)
    paths = [(bench.netns(), bench.netns()) for _ in range(RUNS)]
    replayed, compiled = apply_alone(paths)
    yield _times("rules compiled each time, v4+v6", compiled)
    yield _times("rules replayed, v4+v6", replayed) | _to(replayed, compiled, "compiled each time")
    both = (FROZEN, UNACCELERATED)
    versions = [call_for_version(file, bench.folder) for file in both]
    deletions = [bench.call(file, mesh, command="DEL") for file in both]
    for command, calls in (("VERSION", versions), ("DEL", deletions)):
        ours, python = in_turns([calls] * RUNS)
        yield _times(command, ours) | _to(ours, python, "without accelerator")
    yield from by_backend(bench)
    for pods, target in ((50, "<= 250 ms"), (PODS, "<= 500 ms")):
        burst = [max(at_once([bench.call(FROZEN, mesh, number) for number in range(pods)])) for _ in range(BURSTS)]
        yield _times(f"{pods} ADDs at once, the last one's end", burst, target)
    yield _times("repair of a stomped conflist", bench.repairs(0.25, STOMPS), "p99 <= 50 ms")
    yield _times("repair, stomped three times a second", bench.repairs(1 / 3, 30), "p99 <= 50 ms")


def other_forms(bench: Bench, mesh: Path) -> Iterator[dict[str, Any]]:
    """Measure calls in other forms than those of today's runtimes, beside theirs."""
    values = json.loads(mesh.read_text())
    form = bench.folder / "form.stdin"
    form.write_text(json.dumps({"aFirstKey": 1} | values, indent=1))
    rounds = [
        (bench.call(FROZEN, mesh), bench.call(FROZEN, form), bench.call(FROZEN, mesh, uid=False)) for _ in range(RUNS)
    ]
    usual, blanks, no_uid = in_turns(rounds)
    for what, times in (("blanks, another first key", blanks), ("without a uid", no_uid)):
        yield _times(f"ADD, {what}", times, "at most 2 ms more") | _to(times, usual, "the usual form")


def by_backend(bench: Bench) -> Iterator[dict[str, Any]]:
    """Measure the backends in turns, each with an agent of its own."""
    agents = [bench.agent, *(bench.start_agent(each, bench.folder / each.value) for each in list(Backend)[1:])]
    stdin = [bench.config(f"mesh{number}", agentSocket=str(agent.socket)) for number, agent in enumerate(agents)]
    for what, pod in (("ADD, meshed pod", 0), ("ADD, 64 ports and 64 ranges", PODS)):
        rounds = [[bench.call(FROZEN, each, pod) for each in stdin] for _ in range(RUNS_BY_BACKEND)]
        nft, *others = in_turns(rounds)
        yield _times(f"{what}, by {Backend.NFT.value}", nft)
        for backend, times in zip(list(Backend)[1:], others, strict=True):
            yield _times(f"{what}, by {backend.value}", times) | _to(times, nft, "nft")
    for agent in agents[1:]:
        agent.stop()


def sizes(bench: Bench) -> Iterator[dict[str, Any]]:
    """Measure what is not time."""
    yield _size("plugin file", FROZEN.stat().st_size, "<= 10 MB")
    yield _size(f"agent, resident, {PODS} pods from a folder", bench.agent.rss(), "<= 60 MiB with a cluster")
    before, started = bench.agent.cpu(), time.monotonic()
    time.sleep(10)
    busy = (bench.agent.cpu() - before) / (time.monotonic() - started) * 100
    yield {"what": "agent, idle, percent of a core", "value": round(busy, 2), "target": "<= 0.5 %"}


def _times(what: str, times: Sequence[float], target: str = "") -> dict[str, Any]:
    p50, p99 = percentile(times, 50), percentile(times, 99)
    return {"what": what, "runs": len(times), "p50 ms": round(p50, 2), "p99 ms": round(p99, 2), "target": target}


def _ratio(ours: Sequence[float], floor: Sequence[float]) -> float:
    return round(percentile([a / b for a, b in zip(ours, floor, strict=True)], 50), 2)


def _to(ours: Sequence[float], others: Sequence[float], whose: str) -> dict[str, Any]:
    return {"ratio": _ratio(ours, others), "to": whose}


def _size(what: str, size: int, target: str) -> dict[str, Any]:
    return {"what": what, "value": f"{size / 1e6:.1f} MB ({size / 2**20:.1f} MiB)", "target": target}


def main() -> int:
    """Measure all, print the table, keep the figures."""
    argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__).parse_args()
    if os.geteuid() != 0:
        print("bench: not root: network namespaces cannot be made; run it as root", file=sys.stderr)
        return 1
    results = []
    folder = Path(tempfile.mkdtemp(prefix="istio-cni-bench-"))
    try:
        with ExitStack() as stack:
            bench = Bench(folder, stack)
            print(f"{'':42} {'p50 ms':>9} {'p99 ms':>9}   target")
            for measure in (rows, sizes):
                for row in measure(bench):
                    results.append(row)
                    _print(row)
    finally:
        shutil.rmtree(folder)
    report = machine() | {"rows": results}
    (ROOT / "build" / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    print("written: build/bench.json")
    return 0


def _print(row: dict[str, Any]) -> None:
    if "value" in row:
        print(f"{row['what']:42} {row['value']:>19}   {row['target']}", flush=True)
        return
    ratio = f"   (measured: {row['ratio']} x {row['to']})" if "ratio" in row else ""
    print(f"{row['what']:42} {row['p50 ms']:9.2f} {row['p99 ms']:9.2f}   {row['target']}{ratio}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
