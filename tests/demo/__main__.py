"""`make demo`: each step says what it does and shows what there is to see; all of it is gone at the end, also on Ctrl-C."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import envoy
from tests.support.mesh import Mesh, rules, serve, url
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.cri import Container, Pod


class Tour:
    """The steps, in order, on one node."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.conflist = mesh.node.conf_dir / "10-k8s.conflist"
        self.meshed: Pod
        self.plain: Pod
        self.application: Container

    def a_node(self) -> None:
        """A node: containerd with runc and the plugins bridge, host-local and portmap, in namespaces of its own."""
        self.mesh.node.write_primary()
        self.mesh.node.wait_network_ready()
        tell(f"containerd has loaded: {', '.join(self.mesh.node.plugins_loaded())}")

    def the_agent(self) -> None:
        """The agent starts. It copies the plugin to the node and adds its entry to the conflist; nothing else changes."""
        before = self.conflist.read_text()
        self.mesh.agent.start()
        tell(self.mesh.agent.ready())
        show(difflib.unified_diff(before.splitlines(), self.conflist.read_text().splitlines(), "before", "after", n=1))
        until(lambda: "istio-cni" in self.mesh.node.plugins_loaded(), 10, "containerd has loaded the spliced conflist")
        tell(f"containerd has noticed: {', '.join(self.mesh.node.plugins_loaded())}")

    def three_pods(self) -> None:
        """Three pods. For each, containerd calls the plugin, the plugin asks the agent, and the agent decides."""
        self.meshed = self.mesh.create("meshed", injected=True)
        self.plain = self.mesh.create("plain", injected=False)
        self.mesh.create("excluded", "istio-system", injected=True)
        for line in self.mesh.agent.log.read_text().splitlines():
            record = json.loads(line)
            if str(record.get("msg", "")).startswith("ADD"):
                took = f"{record['seconds'] * 1000:.1f} ms in the agent"
                pod = f"{record['namespace']}/{record['pod']}"
                tell(f"{pod}: {record['msg'].removeprefix('ADD: ')}, because {record['reason']} ({took})")
        tell(f"rules in the meshed pod's network namespace: {len(rules(self.meshed).splitlines())} lines")
        tell(f"rules in the plain pod's: {len(rules(self.plain).splitlines())}")

    def envoy_takes_the_traffic(self) -> None:
        """Envoy runs in the meshed pod as uid 1337, without a capability. Its counters tell who goes through it."""
        self.application = serve(self.meshed)
        serve(self.plain)
        envoy.start(self.meshed)
        tell(f"connections that Envoy counts before: {envoy.counters(self.meshed)}")
        tell(f"a request from outside to the meshed pod: {self.mesh.get(self.meshed)!r} (the source is Envoy's)")
        tell(f"after it: {envoy.counters(self.meshed)}")
        answer = self.application.exec(["/get", url(self.plain)]).stdout.strip()
        tell(f"a request by its application to the plain pod: {answer!r}")
        tell(f"after it: {envoy.counters(self.meshed)}")
        tell(f"a request from outside to the plain pod, round any Envoy: {self.mesh.get(self.plain)!r}")

    def a_repair(self) -> None:
        """The primary CNI writes its conflist anew, without our entry. The agent repairs it."""
        started = time.perf_counter()
        self.mesh.node.write_primary()
        while b"istio-cni" not in self.conflist.read_bytes():
            time.sleep(0.0005)
            if time.perf_counter() - started > 10:
                raise RuntimeError(f"{self.conflist} was not repaired within 10 s")
        tell(f"repaired {(time.perf_counter() - started) * 1000:.1f} ms after it was written")

    def an_uninstall(self) -> None:
        """Uninstall: the entry goes first, the plugin file last."""
        self.mesh.agent.stop()
        for line in self.mesh.agent.uninstall().stdout.splitlines():
            tell(line)


def tell(text: str) -> None:
    """Say one thing that was seen."""
    print(f"   {text}", flush=True)


def show(diff: Iterable[str]) -> None:
    """Show a diff, coloured on a terminal."""
    colours = {"+": "\033[32m", "-": "\033[31m"} if sys.stdout.isatty() else {}
    for line in diff:
        text = line.rstrip("\n")
        colour = colours.get(text[:1])
        print(f"     {colour}{text}\033[0m" if colour else f"     {text}")


def main() -> int:
    """Make the tour."""
    argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__).parse_args()
    if os.geteuid() != 0:
        print("demo: not root: a node needs namespaces and mounts of its own; run it as root", file=sys.stderr)
        return 1
    # Also where it was started with them ignored, as in the background of a script.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="istio-cni-demo-"))
    started = time.monotonic()
    try:
        with Mesh(folder) as mesh:
            tour = Tour(mesh)
            steps = (tour.a_node, tour.the_agent, tour.three_pods, tour.envoy_takes_the_traffic, tour.a_repair)
            for number, step in enumerate((*steps, tour.an_uninstall), 1):
                print(f"\n{number}. {step.__doc__}", flush=True)
                step()
            print("\nCleaning up: pods, containerd, namespaces.", flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted; cleaned up", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"Done in {time.monotonic() - started:.0f} s; nothing is left.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
