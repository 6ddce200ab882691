"""What primary CNIs do to cniConfDir, in three turns each, and where the plugin's entry is after each of them.

To add a primary, add a row to `PRIMARIES`: its name, and three turns. A turn says, by file name, what the primary writes
(text, or a function of what the directory holds then; None: it deletes the file), in which file the entry is afterwards, and
the types of the plugins that the runtime runs before ours. `runs` is empty where there is no network. Two tests take each
row: tests/agent/test_primaries.py by libcni's rule, and tests/containerd/test_primaries.py by containerd's own choice.

The facts are from the primaries' documentation and their installers' behaviour; the texts are written for this table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tests.cniconfig import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

Files: TypeAlias = "Mapping[str, bytes]"
Content: TypeAlias = "bytes | Callable[[Files], bytes] | None"


class Turn(NamedTuple):
    """One turn; `ours` is "" where the plugin runs as Multus' delegate, and `entry` then names the list that was copied."""

    does: Mapping[str, Content]
    entry: str
    runs: Sequence[str]
    ours: str = "istio-cni"


def single(name: str, kind: str, **more: Any) -> bytes:
    """A single plugin's configuration."""
    return json.dumps({"cniVersion": "0.3.1", "name": name, "type": kind, **more}).encode()


def plugins(name: str, *kinds: str, **more: Any) -> bytes:
    """A list of plugins."""
    made = [{"type": kind, **more} for kind in kinds]
    return json.dumps({"cniVersion": "0.3.1", "name": name, "plugins": made}, indent=2).encode() + b"\n"


def moved(name: str) -> Callable[[Files], bytes]:
    """What a file holds that is renamed."""
    return lambda files: files[name]


def appended(name: str, kind: str) -> Callable[[Files], bytes]:
    """What a list holds, and another plugin behind it: as programs do that chain themselves."""

    def content(files: Files) -> bytes:
        read = json.loads(files[name])
        return json.dumps({**read, "plugins": [*read["plugins"], {"type": kind}]}).encode()

    return content


def delegating(files: Files) -> bytes:
    """Multus' configuration with a copy of what it delegates to: of the first file that is not its own, as it is then."""
    found = (name for name in files if name.endswith((".conf", ".conflist")) and not name.startswith("00-multus"))
    return single("multus-cni-network", "multus", delegates=[json.loads(files[min(found)])])


def by_path(master: str, **more: Any) -> bytes:
    """The thick Multus' configuration, which names the file that it delegates to."""
    return single("multus-cni-network", "multus-shim", clusterNetwork=f"/host/etc/cni/net.d/{master}", **more)


PRIMARIES: Mapping[str, Sequence[Turn]] = {
    # Its manifest's init container copies one file; that was a .conf up to 0.9. Nobody deletes the old one, which is first.
    "flannel": [
        Turn({"10-flannel.conf": single("cbr0", "flannel")}, "10-flannel-istio-cni.conflist", ["flannel"]),
        Turn({"10-flannel.conflist": examples.FLANNEL}, "10-flannel-istio-cni.conflist", ["flannel"]),
        Turn({"10-flannel.conf": None}, "10-flannel.conflist", ["flannel", "portmap"]),
    ],
    # install-cni writes the list by rename, and deletes a 10-calico.conf; a kubeconfig lies beside it.
    "calico": [
        Turn(
            {"10-calico.conf": single("k8s-pod-network", "calico"), "calico-kubeconfig": b"apiVersion: v1\n"},
            "10-calico-istio-cni.conflist",
            ["calico"],
        ),
        Turn(
            {"10-calico.conflist": examples.CALICO, "10-calico.conf": None},
            "10-calico.conflist",
            ["calico", "portmap", "bandwidth"],
        ),
        Turn(
            {"10-calico.conflist": examples.CALICO.replace(b'"mtu": 0', b'"mtu": 1450')},
            "10-calico.conflist",
            ["calico", "portmap", "bandwidth"],
        ),
    ],
    # cni.exclusive renames the files of others away, whatever is in them.
    "cilium": [
        Turn({"10-flannel.conflist": examples.FLANNEL}, "10-flannel.conflist", ["flannel", "portmap"]),
        Turn(
            {
                "05-cilium.conflist": examples.CILIUM,
                "10-flannel.conflist.cilium_bak": moved("10-flannel.conflist"),
                "10-flannel.conflist": None,
            },
            "05-cilium.conflist",
            ["cilium-cni"],
        ),
        Turn({"05-cilium.conflist": examples.CILIUM.replace(b"false", b"true")}, "05-cilium.conflist", ["cilium-cni"]),
    ],
    # aws-node deletes its list when it starts, so that the node is not ready, and writes it when it has addresses.
    "aws": [
        Turn({"10-aws.conflist": examples.AWS}, "10-aws.conflist", ["aws-cni", "portmap"]),
        Turn({"10-aws.conflist": None}, "", []),
        Turn({"10-aws.conflist": examples.AWS.replace(b"9001", b"1500")}, "10-aws.conflist", ["aws-cni", "portmap"]),
    ],
    # A second list with another prefix comes with an upgrade; the first one goes later.
    "azure": [
        Turn({"10-azure.conflist": examples.AZURE}, "10-azure.conflist", ["azure-vnet", "portmap"]),
        Turn(
            {"15-azure-swift-overlay.conflist": plugins("azure", "azure-vnet")},
            "10-azure.conflist",
            ["azure-vnet", "portmap"],
        ),
        Turn({"10-azure.conflist": None}, "15-azure-swift-overlay.conflist", ["azure-vnet"]),
    ],
    # kindnetd writes its list anew whenever the node's ranges change.
    "kindnet": [
        Turn({"10-kindnet.conflist": examples.KINDNET}, "10-kindnet.conflist", ["ptp", "portmap"]),
        Turn(
            {"10-kindnet.conflist": examples.KINDNET.replace(b"10.244.0", b"10.244.7")},
            "10-kindnet.conflist",
            ["ptp", "portmap"],
        ),
        Turn({"10-kindnet.conflist": examples.KINDNET}, "10-kindnet.conflist", ["ptp", "portmap"]),
    ],
    # --cni-conf-name was 00-kube-ovn.conflist before it became 01-kube-ovn.conflist.
    "kube-ovn": [
        Turn({"00-kube-ovn.conflist": plugins("kube-ovn", "kube-ovn")}, "00-kube-ovn.conflist", ["kube-ovn"]),
        Turn(
            {"01-kube-ovn.conflist": plugins("kube-ovn", "kube-ovn", "portmap"), "00-kube-ovn.conflist": None},
            "01-kube-ovn.conflist",
            ["kube-ovn", "portmap"],
        ),
        Turn(
            {"01-kube-ovn.conflist": plugins("kube-ovn", "kube-ovn", "portmap", server_socket="/run/kube-ovn.sock")},
            "01-kube-ovn.conflist",
            ["kube-ovn", "portmap"],
        ),
    ],
    # By itself it has a list of its own; in policy-only mode it puts itself into another network's list, last.
    "antrea": [
        Turn(
            {"10-antrea.conflist": plugins("antrea", "antrea", "portmap")}, "10-antrea.conflist", ["antrea", "portmap"]
        ),
        Turn({"10-antrea.conflist": None, "10-aws.conflist": examples.AWS}, "10-aws.conflist", ["aws-cni", "portmap"]),
        Turn(
            {"10-aws.conflist": appended("10-aws.conflist", "antrea")},
            "10-aws.conflist",
            ["aws-cni", "portmap", "antrea"],
        ),
    ],
    # The script `weave-kube` deletes an old 10-weave.conf once it has written the list.
    "weave": [
        Turn({"10-weave.conf": single("weave", "weave-net")}, "10-weave-istio-cni.conflist", ["weave-net"]),
        Turn(
            {"10-weave.conflist": plugins("weave", "weave-net", "portmap")},
            "10-weave-istio-cni.conflist",
            ["weave-net"],
        ),
        Turn({"10-weave.conf": None}, "10-weave.conflist", ["weave-net", "portmap"]),
    ],
    # ovnkube-node writes its file when it is ready, deletes it when it ends, and writes it again.
    "ovn-kubernetes": [
        Turn(
            {"10-ovn-kubernetes.conf": examples.OVN_CONF},
            "10-ovn-kubernetes-istio-cni.conflist",
            ["ovn-k8s-cni-overlay"],
        ),
        Turn({"10-ovn-kubernetes.conf": None}, "", []),
        Turn(
            {"10-ovn-kubernetes.conf": examples.OVN_CONF.replace(b"ovn.log", b"ovn-2.log")},
            "10-ovn-kubernetes-istio-cni.conflist",
            ["ovn-k8s-cni-overlay"],
        ),
    ],
    # It copies the first file that is not its own, entry included, and again when that changes.
    "multus thin": [
        Turn({"10-flannel.conflist": examples.FLANNEL}, "10-flannel.conflist", ["flannel", "portmap"]),
        Turn({"00-multus.conf": delegating}, "10-flannel.conflist", ["multus"], ours=""),
        Turn({"00-multus.conf": delegating}, "10-flannel.conflist", ["multus"], ours=""),
    ],
    # Its daemon names the file that it delegates to, and writes its own anew when that changes.
    "multus thick": [
        Turn({"10-flannel.conflist": examples.FLANNEL}, "10-flannel.conflist", ["flannel", "portmap"]),
        Turn({"00-multus.conf": by_path("10-flannel.conflist")}, "00-multus-istio-cni.conflist", ["multus-shim"]),
        Turn(
            {"00-multus.conf": by_path("10-flannel.conflist", logLevel="verbose")},
            "00-multus-istio-cni.conflist",
            ["multus-shim"],
        ),
    ],
}
