"""`make scale`: many simulated agents at a real API server. Prints a table, writes build/scale.json, ends by itself."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import TYPE_CHECKING, Any

from installer.agent.node_reporter import SPREAD
from tests.controller.stage import Controller, Stage
from tests.programs.build import build
from tests.programs.lots import ETCD
from tests.scale.agent import PODS, RESOURCES, Habits
from tests.scale.fleet import Fleet, Stretch
from tests.scale.kept import Kept
from tests.scale.served import STATUS_WRITES, served
from tests.scale.site import Site
from tests.scale.usage import usage
from tests.support.call import ROOT
from tests.support.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.scale.site import Place

WITHIN = 420.0  # seconds at most for all to start, or to report a change
LOOK_AFTER_CUT = 1.0  # seconds in which all have noticed
CONNECTIONS_EACH = 6  # at most, at the start of an agent
COMPARED = 200  # agents at most that compare, one after the other
CONTROLLER_LOG = ROOT / "build" / "scale-controller.log"  # of a run that failed
LONGEST_RUN = 1200.0  # seconds from the first agent's start


class Run:
    """One run, and what it has measured."""

    def __init__(
        self, site: Site, places: Sequence[Place], quiet: float, controller: Kept, rows: list[dict[str, Any]]
    ) -> None:
        self._site, self._places, self._quiet, self._controller = site, places, quiet, controller
        pids = {**site.cluster.pids, "clients": os.getpid()}
        self._used = {name: partial(usage, pid) for name, pid in pids.items()} | {"controller": lambda: controller.used}
        self._rows = rows

    async def run(self, habits: Habits) -> None:
        """Start all, leave them alone for a while, change the resource, cut all connections, have some compare."""
        generation = await self._site.settings("warn")
        async with Fleet(self._site, self._places, habits) as fleet:
            async with self._stretch(f"start, spread over {habits.start_within:g} s", fleet):
                within = habits.start_within + WITHIN
                await fleet.until_each(lambda agent: agent.has_started(generation), within, "have started")
            self._say("knows its pods, s after its start", [a.known - a.started for a in fleet.agents])
            self._say("has reported, s after its start", [a.reported[generation] - a.started for a in fleet.agents])
            await self._rest(fleet)

    async def _rest(self, fleet: Fleet) -> None:
        print(f"  watches: {fleet.tally.watches[PODS]} on pods, {fleet.tally.watches[RESOURCES]} on the resource")
        async with self._stretch("quiet", fleet):
            await asyncio.sleep(self._quiet)
        async with self._stretch("a change of the resource", fleet) as change:
            generation = await self._site.settings("debug")
            await fleet.until_each(lambda agent: generation in agent.reported, WITHIN, "have reported")
        self._say("has heard of it, s", [agent.applied[generation] - change.began for agent in fleet.agents])
        self._say("has reported it, s", [agent.reported[generation] - change.began for agent in fleet.agents])
        async with self._stretch("all connections are cut", fleet):
            fleet.tally.cut()
            await asyncio.sleep(LOOK_AFTER_CUT)
            await fleet.until(lambda: fleet.watched, WITHIN, "all watch again")
        some = fleet.agents[:COMPARED]
        async with self._stretch(f"{len(some)} compare, one by one", fleet):
            for agent in some:
                await agent.compare()

    @asynccontextmanager
    async def _stretch(self, what: str, fleet: Fleet) -> AsyncIterator[Stretch]:
        """Measure what is done in the block; when that fails, as far as it has come, without asking the API server."""
        stretch, tally = Stretch(fleet.tally, self._used), fleet.tally
        before, restarts = served(await self._site.metrics()), self._controller.restarts
        again, heard = tally.again.copy(), tally.event_bytes[RESOURCES, "MODIFIED"]

        def keep(name: str, counted: Counter[str]) -> None:
            row = {"what": name, **stretch.figures(), "statuses": counted[STATUS_WRITES]}
            row["their kB"] = round((tally.event_bytes[RESOURCES, "MODIFIED"] - heard) / 1e3)
            row["restarts"] = self._controller.restarts - restarts
            print(" ".join(map(_cell, row.values())), flush=True)
            more = {"asked again for": tally.again - again, "the API server has counted": counted}
            self._rows.append(row | {title: dict(counts.most_common()) for title, counts in more.items()})

        try:
            with stretch:
                yield stretch
        except BaseException:
            keep(f"{what}: NOT DONE", Counter())
            raise
        keep(what, served(await self._site.metrics()) - before)

    def _say(self, what: str, seconds: Sequence[float]) -> None:
        ordered = sorted(seconds)
        row = {"what": what} | {f"p{share}": round(_percentile(ordered, share), 2) for share in (50, 99, 100)}
        self._rows.append(row)
        print(f"  {what}: p50 {row['p50']}, p99 {row['p99']}, last {row['p100']}", flush=True)


def _cell(value: object) -> str:
    return f"{value:36}" if isinstance(value, str) else f"{value:>11}"


def _percentile(ordered: Sequence[float], share: int) -> float:
    """Return the smallest value that so many percent of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def main() -> int:
    """Make the cluster, run once for each spread of the start, keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=5, help="a node, besides the agent's own")
    parser.add_argument("--start-within", type=float, nargs="+", default=[120.0], help="seconds; one run each")
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds without anything happening")
    parser.add_argument("--spread", type=float, default=SPREAD, help="seconds over which reports are spread")
    parser.add_argument(
        "--etcd", type=Path, help=f"the program (default: {ETCD.title}, built once; Debian's has lists read all pods)"
    )
    given = parser.parse_args()
    _, most = getrlimit(RLIMIT_NOFILE)
    if most < (needed := given.agents * CONNECTIONS_EACH + 100):
        print(
            f"scale: {most} open files are allowed, expected {needed} or more: ulimit -Hn, or fewer --agents",
            file=sys.stderr,
        )
        return 1
    setrlimit(RLIMIT_NOFILE, (most, most))
    if not given.etcd:
        build(ETCD)
    etcd = given.etcd or ETCD.folder / "etcd"
    logging.disable()  # what an agent says of a refused request is counted
    folder_of_run = Path(tempfile.mkdtemp(prefix="istio-cni-scale-"))
    folder_of_run.chmod(0o755)  # the controller is not root
    rows: list[dict[str, Any]] = []
    report = {"agents": given.agents, "pods": given.pods, "processors": os.cpu_count(), "done": False, "rows": rows}
    try:
        for within in given.start_within:
            with Cluster(folder_of_run / f"{within:g}", etcd=str(etcd), options=(), environment={}) as cluster:
                asyncio.run(_measured(cluster, given, Habits(start_within=within, spread=given.spread), rows))
        report["done"] = True
    finally:
        shutil.rmtree(folder_of_run)
        (ROOT / "build" / "scale.json").write_text(json.dumps(report, indent=2) + "\n")
    print("written: build/scale.json")
    return 0


async def _measured(cluster: Cluster, given: argparse.Namespace, habits: Habits, rows: list[dict[str, Any]]) -> None:
    """Make nodes and pods, and run once; the rows are added as they are measured."""
    site = Site(cluster)
    site.install()
    began = time.monotonic()
    places = await site.places([f"node-{number:05}" for number in range(given.agents)], given.pods)
    print(
        f"{given.agents} agents, {given.pods + 1} pods a node, made in {time.monotonic() - began:.0f} s; "
        f"{os.cpu_count()} processors for all of it"
    )
    print(" ".join([" " * 36, *(f"{name:>11}" for name in (*Stretch.NAMES, "statuses", "their kB", "restarts"))]))
    folder_of_controller = cluster.folder / "controller"
    folder_of_controller.mkdir()
    with Controller(Stage(cluster, folder_of_controller), "scale") as controller:
        async with Kept(controller) as kept:
            try:
                async with asyncio.timeout(LONGEST_RUN):
                    await Run(site, places, given.quiet, kept, rows).run(habits)
            except BaseException:
                shutil.copy(controller.log, CONTROLLER_LOG)
                print(f"--- the end of {CONTROLLER_LOG}:\n{kept.last_words}\n{cluster.logs()}", file=sys.stderr)
                raise


if __name__ == "__main__":
    sys.exit(main())
