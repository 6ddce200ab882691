"""A pod with `hostUsers: false`: its netns is owned by a user namespace, whose ids are the pod's, and not the node's (F43)."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from plugin.apply import ApplyError, apply, check
from plugin.backend import Backend
from plugin.netns import NetnsFd
from plugin.redirect import Family, Mode, Redirect
from plugin.values import Gid, Uid
from tests.redirect.machines import Machines
from tests.redirect.probes import APPLICATION, PROXY, Place, Probe, Sender
from tests.redirect.rows import ALL_INBOUND, ROWS, Row
from tests.redirect.test_packets import different, expected
from tests.support.netns import UserNetns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

BOTH = (Family.V4, Family.V6)
CAPABILITIES = ("net_admin", "sys_admin", "net_raw", "dac_override", "chown", "fowner")  # as the chart has them
APPLIED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from plugin.apply import apply, check
from plugin.backend import Backend
from plugin.netns import NetnsFd
from plugin.redirect import Family, Mode, Redirect
redirect = Redirect(families=tuple(Family), mode=Mode.TPROXY, dns_capture=True)
backend = Backend(sys.argv[2])
def work():
    with open(sys.argv[1], "rb") as file:
        apply(NetnsFd(file.fileno()), redirect, backend).free()
        print(check(NetnsFd(file.fileno()), redirect, backend))
with ThreadPoolExecutor(1) as worker:
    worker.submit(work).result()
"""


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Machines whose pod has a user namespace of its own; its processes have the ids there."""
    with Machines(tmp_path_factory.mktemp("machines"), pod=UserNetns) as machines:
        yield machines


@pytest.mark.parametrize("name", ["inbound", "outbound", "over lo", "DNS"])
def test_packets_arrive_where_they_should(pod: Machines, backend: Backend, mode: Mode, name: str) -> None:
    redirect = ROWS[name].redirect(mode)
    with pod.redirected(redirect, backend):
        assert pod.on_worker(lambda fd: check(fd, redirect, backend)) is None
        assert different(pod, expected(name, mode)) == []


@pytest.mark.parametrize("family", Family)
def test_the_host_id_of_the_sidecar_is_not_exempt(pod: Machines, backend: Backend, family: Family) -> None:
    """What the node runs in there as uid 1337, as an administrator may with nsenter, has no id in the pod."""
    redirect = replace(Row(ALL_INBOUND, ()).redirect(), families=BOTH)
    probe = Probe(family, 80, PROXY, Place.PEER)
    with pod.redirected(redirect, backend):
        assert pod.send([probe])[0].port == 80
        assert pod.send_from_the_node(probe).port == 15001


def test_a_sidecar_with_other_ids_is_recognised_by_them(tmp_path: Path, backend: Backend) -> None:
    own = Sender(2000, 3000)
    redirect = replace(Row(ALL_INBOUND, ()).redirect(), uid=Uid(own.uid), gid=Gid(own.gid))
    with Machines(tmp_path, ids=own, pod=UserNetns) as machines, machines.redirected(redirect, backend):
        probes = [Probe(family, 80, sender, Place.PEER) for family in Family for sender in (own, APPLICATION)]
        assert [each.port for each in machines.send(probes)] == [80, 15001] * 2


@pytest.mark.parametrize("backend", Backend, ids=lambda each: each.value)
def test_the_charts_capabilities_suffice(tmp_path: Path, backend: Backend) -> None:
    own = ",".join(f"+{each}" for each in CAPABILITIES)
    with UserNetns(tmp_path / "netns") as netns:
        limited = ["/usr/bin/setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set=-all,{own}"]
        command = [*limited, sys.executable, "-c", APPLIED, str(netns.path), backend.value]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"


@pytest.mark.parametrize("backend", Backend, ids=lambda each: each.value)
def test_id_maps_may_be_written_before_or_after_the_add(tmp_path: Path, backend: Backend) -> None:
    redirect = Redirect(families=BOTH)
    with (
        UserNetns(tmp_path / "netns", at_once=True) as netns,
        netns.path.open("rb") as file,
        ThreadPoolExecutor(1) as worker,
    ):
        for _ in range(2):
            worker.submit(lambda: apply(NetnsFd(file.fileno()), redirect, backend).free()).result()
        assert worker.submit(check, NetnsFd(file.fileno()), redirect, backend).result() is None


@pytest.mark.parametrize("backend", [Backend.IPTABLES_NFT, Backend.IPTABLES_LEGACY], ids=lambda each: each.value)
def test_a_user_namespace_that_cannot_be_entered_is_reported(tmp_path: Path, backend: Backend) -> None:
    """One without root: whoever enters it is nobody there, and loses all rights with the next program that it runs."""
    with (
        UserNetns(tmp_path / "netns", first=1, at_once=True) as netns,
        netns.path.open("rb") as file,
        ThreadPoolExecutor(1) as worker,
    ):
        with pytest.raises(ApplyError, match="becoming root in the pod's user namespace: Invalid argument"):
            worker.submit(apply, NetnsFd(file.fileno()), Redirect(), backend).result()
        assert netns.rules() == ""
