"""The agent does its work with the rights that the DaemonSet gives it, and with none of them less."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plugin.backend import Backend
from tests.support.agent import AgentProcess
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.chart.conftest import Render
    from tests.chart.helm import Rendered

pytestmark = pytest.mark.apiserver

SOMEBODY = 12345  # a uid and gid of none of this machine's
CONFLIST = {"cniVersion": "0.3.1", "name": "k8s", "plugins": [{"type": "bridge"}]}
READ_ONLY = 'mount --bind "$0" "$0"; mount -o remount,bind,ro /; exec "$@"'
WITHOUT = {
    "NET_ADMIN": "this node cannot redirect pods",
    "SYS_ADMIN": "this node cannot redirect pods",
    "DAC_OVERRIDE": "Permission denied",
    "CHOWN": "Operation not permitted",
    "FOWNER": "Operation not permitted",
}


def contained(folder: Path, chart: Rendered, *, without: Collection[str] = ()) -> AgentProcess:
    """Prepare an agent that runs as in its container: settings, capabilities, nothing to be gained, a root that is read-only.

    The directories of the node are somebody's who is not root, as on nodes where they were unpacked from an archive.
    """
    settings = chart.settings
    bin_dir, conf_dir = (folder / settings[name].lstrip("/") for name in ("CNI_BIN_DIR", "CNI_CONF_DIR"))
    for made in (bin_dir, conf_dir, folder / "pods"):
        made.mkdir(parents=True)
    conflist = conf_dir / "10-k8s.conflist"
    conflist.write_text(json.dumps(CONFLIST))
    conflist.chmod(0o640)
    for path in (bin_dir, conf_dir, conflist):
        os.chown(path, SOMEBODY, SOMEBODY)
    given = chart.container["securityContext"]["capabilities"]["add"]
    added = [each.lower() for each in given if each not in without]
    setpriv = ["/usr/bin/setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
    bounding = ",".join(["-all", *(f"+{each}" for each in added)])
    inside = ["/usr/bin/unshare", "--mount", "--propagation=private", "/bin/sh", "-ec", READ_ONLY, str(folder)]
    (folder / "host").mkdir()
    (folder / "host" / "cni-bin-dir").symlink_to(bin_dir)
    (folder / "host" / "cni-conf-dir").symlink_to(conf_dir)
    own: dict[str, str | Path] = {
        "mounts": folder / "host",
        "cni-bin-dir": bin_dir,
        "cni-conf-dir": conf_dir,
        "pods-from": folder / "pods",
        "log-level": "info",
    }
    told = {name.lower().replace("_", "-"): value for name, value in settings.items()}
    for of_this_test in ("agent-socket", "health-address"):
        del told[of_this_test]
    return AgentProcess(
        folder,
        conf_dir=conf_dir,
        bin_dir=bin_dir,
        options=told | own,
        prefix=[*inside, *setpriv, f"--bounding-set={bounding}"],
    )


def backends(agent: AgentProcess) -> dict[str, str]:
    """What the agent has found out about each backend, as it logs it."""
    lines = [json.loads(line) for line in agent.log.read_text().splitlines()]
    return {line["backend"]: line["found"] for line in lines if line["msg"] == "backend"}


def test_agent_is_ready_with_the_daemonsets_privileges_and_all_backend_features(tmp_path: Path, render: Render) -> None:
    with contained(tmp_path, render()) as agent:
        assert "10-k8s.conflist" in agent.ready()
        assert agent.process
        mounts = Path(f"/proc/{agent.process.pid}/mounts").read_text().splitlines()
        (options,) = [each.split()[3] for each in mounts if each.split()[1] == "/"]
        assert "ro" in options.split(",")
        assert backends(agent) == {each.value: f"{each.value} (has all features)" for each in Backend}
        written = (agent.conf_dir / "10-k8s.conflist").stat()
        assert (written.st_uid, written.st_gid, written.st_mode & 0o777) == (SOMEBODY, SOMEBODY, 0o640)
        assert json.loads((agent.conf_dir / "10-k8s.conflist").read_text())["plugins"][-1]["type"] == "istio-cni"


@pytest.mark.parametrize("capability", WITHOUT)
def test_agent_is_not_ready_if_a_capability_is_missing(tmp_path: Path, render: Render, capability: str) -> None:
    with contained(tmp_path, render(), without=[capability]) as agent:
        until(lambda: WITHOUT[capability] in agent.log.read_text(), 30, f"the log says: {WITHOUT[capability]}")


def test_missing_net_raw_disables_iptables_legacy(tmp_path: Path, render: Render) -> None:
    with contained(tmp_path, render(), without=["NET_RAW"]) as agent:
        agent.ready()
        assert backends(agent)["iptables-legacy"].startswith("iptables-legacy (no nat: ")
        assert backends(agent)["nft"] == "nft (has all features)"


def test_every_granted_capability_has_a_test(render: Render) -> None:
    assert {*WITHOUT, "NET_RAW"} == {*render().container["securityContext"]["capabilities"]["add"]}
