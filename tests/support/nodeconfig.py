"""The configuration of a Kubernetes node's parts: settings that a node in its own namespaces needs, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.programs.lots import NODE

if TYPE_CHECKING:
    from collections.abc import Sequence

PODS = ("10.244.0.0/16", "fd00:10:244::/48")
SERVICES = ("10.96.0.0/16", "fd00:10:96::/112")
DNS, DNS6 = "10.96.0.10", "fd00:10:96::a"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


@dataclass(frozen=True)
class Place:
    """A node's place in its cluster: which name and addresses it has."""

    number: int

    @property
    def name(self) -> str:
        """The node's."""
        return f"node{self.number}"

    @property
    def kubelet(self) -> str:
        """Under which of `USERS` its kubelet goes to the API server."""
        return f"kubelet-{self.number}"

    @property
    def addresses(self) -> tuple[str, str]:
        """The node's, IPv4 and IPv6; its kubelet listens at the first, and at that of the first node the API server."""
        return f"10.77.0.{self.number + 1}", f"fd00:10:77::{self.number + 1}"

    @property
    def pods(self) -> tuple[str, str]:
        """The networks of its pods."""
        return f"10.244.{self.number}.0/24", f"fd00:10:244:{self.number}::/64"


@dataclass(frozen=True)
class Parts:
    """The programs that a node has below its kubelet.

    Attributes:
        programs: the folder of containerd, its client and its shim.
        runc: the file.
        plugins: the folder of the CNI plugins.
        cni_version: of the primary CNI's conflist; from 1.1.0 on a runtime that can calls STATUS and GC.
        containerd_config: how its configuration is written: version 2, or 3 since containerd 2.0.
    """

    programs: Path
    runc: Path
    plugins: Path
    cni_version: str
    containerd_config: int

    @property
    def files(self) -> list[Path]:
        """All of them."""
        named = [self.programs / name for name in ("containerd", "ctr", "containerd-shim-runc-v2")]
        return [*named, self.runc, *(self.plugins / name for name in CNI_PLUGINS)]


CNI_PLUGINS = ("bridge", "host-local", "portmap", "loopback")
DEBIAN = Parts(Path("/usr/bin"), Path("/usr/sbin/runc"), Path("/usr/lib/cni"), "1.0.0", 2)
RECENT = Parts(NODE.folder, NODE.folder / "runc", NODE.folder, "1.1.0", 3)
FIRST, SECOND = Place(1), Place(2)
API_ADDRESSES = (*FIRST.addresses, "10.96.0.1", "fd00:10:96::1")  # the API server's: its node's, and its Service's

# Static tokens stand in for client certificates: users, groups and what RBAC lets them do are those of a usual cluster.
USERS = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
} | {place.kubelet: (f"system:node:{place.name}", "system:nodes") for place in (FIRST, SECOND)}


def network(place: Place) -> list[str]:
    """Make `ip`'s commands for the first node's network.

    An interface that is up, with addresses that may be advertised, and a default route, without which a process on the node
    could not so much as begin to connect to a Service. Nothing answers at the other end, until a second node takes it.
    """
    return ["link add eth0 type veth peer name uplink", "link set uplink up", *addresses(place)]


def addresses(place: Place) -> list[str]:
    """Make `ip`'s commands that give a node's eth0 its addresses."""
    four, six = place.addresses
    return [
        f"address add {four}/24 dev eth0",
        f"address add {six}/64 dev eth0",
        "link set eth0 up",
        "route add default via 10.77.0.1",
        "-6 route add default via fd00:10:77::1",
    ]


def routes(to: Place) -> list[str]:
    """Make `ip`'s commands that lead from a node to another one's pods."""
    four, six = zip(to.pods, to.addresses, strict=True)
    return [f"route add {four[0]} via {four[1]}", f"-6 route add {six[0]} via {six[1]}"]


def conflist(parts: Parts, pods: Sequence[str]) -> dict[str, Any]:
    """Make the primary CNI's configuration for these networks of pods."""
    routes = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in pods]
    return {
        "cniVersion": parts.cni_version,
        "name": "k8s",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": subnet}] for subnet in pods],
                    "routes": routes,
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def token(user: str) -> str:
    """Make up a user's token, for a server that nobody can reach from outside the node."""
    return f"token-of-{user}"


def tokens() -> str:
    """Make the API server's list of them: token, name, uid, group."""
    return "".join(f"{token(user)},{name},{name},{group}\n" for user, (name, group) in USERS.items())


def kubeconfig(certificate: Path, bearer: str) -> dict[str, Any]:
    """Make a kubeconfig."""
    cluster = {"server": f"https://{FIRST.addresses[0]}:6443", "certificate-authority": str(certificate)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": bearer}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
        "current-context": "tests",
    }


def containerd(parts: Parts, pause: str, conf_dir: Path, bin_dir: Path) -> str:
    """Make the configuration of a node's containerd; arguments are those of `containerd_1`."""
    if parts.containerd_config == 2:
        return containerd_1(pause, conf_dir, bin_dir)
    return _containerd_2(parts, pause, conf_dir, bin_dir)


def containerd_1(pause: str, conf_dir: Path, bin_dir: Path, *, snapshotter: str = "overlayfs") -> str:
    """Make the configuration of containerd 1.6.

    Its root is in the machine's own /run, in memory, and goes with it. restrict_oom_score_adj: without CAP_SYS_RESOURCE no
    score can be lowered, and every sandbox would fail.

    Args:
        pause: the image of the sandboxes.
        conf_dir: where CNI configurations are.
        bin_dir: where CNI plugins are.
        snapshotter: how images are laid out.
    """
    return f"""\
version = 2
root = "/run/containerd-root"
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stats_collect_period = 3600
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{conf_dir}"
    bin_dir = "{bin_dir}"
"""


def _containerd_2(parts: Parts, pause: str, conf_dir: Path, bin_dir: Path) -> str:
    """Make the configuration of containerd 2, whose shim and runc are not those on PATH.

    stats_collect_period: once a second it would have each shim read its cgroups, for figures that nobody asks for; with 30
    pods that takes a quarter of a processor.
    """
    return f"""\
version = 3
root = "/run/containerd-root"
oom_score = 0
imports = []
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  stats_collect_period = 3600
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  stats_collect_period = "1h"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = "{parts.programs / "containerd-shim-runc-v2"}"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{parts.runc}"
  [plugins."io.containerd.cri.v1.runtime".cni]
    conf_dir = "{conf_dir}"
    bin_dirs = ["{bin_dir}"]
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"""


def kubelet(place: Place, cgroup: str, resolv_conf: Path) -> dict[str, Any]:
    """Make the kubelet's configuration (kubelet.config.k8s.io/v1beta1).

    Whoever can reach it may use it, and only the node and its pods can: then `kubectl exec` and `logs` need no certificates.
    failCgroupV1: since 1.35 it would refuse a machine with cgroups of version 1, or of both. cgroupRoot has to exist.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.addresses[0],
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDNS": [DNS],  # most tests have nobody who answers there, as their programs know addresses alone
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolv_conf),
        # Without thresholds for disks: pods are to start on a full one, too, and see what happens.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,  # 110 in one burst, besides those of the system
    }


def kube_proxy(place: Place, credentials: Path) -> dict[str, Any]:
    """Make kube-proxy's configuration (kubeproxy.config.k8s.io/v1alpha1): 0 leaves the machine's conntrack alone."""
    conntrack = {"maxPerCore": 0, "min": 0} | dict.fromkeys(
        ("tcpEstablishedTimeout", "tcpCloseWaitTimeout", "udpTimeout", "udpStreamTimeout"), "0s"
    )
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(credentials)},
        "clusterCIDR": ",".join(PODS),
        "hostnameOverride": place.name,
        "oomScoreAdj": 0,
        "conntrack": conntrack,
    }


def etcd() -> list[str]:
    """Make etcd's command: its data is in the machine's own /run, in memory."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        "/usr/bin/etcd", "--data-dir=/run/etcd", "--unsafe-no-fsync", f"--initial-cluster=default={peer}",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
    ]  # fmt: skip


def apiserver(programs: Path, folder: Path) -> list[str]:
    """Make kube-apiserver's command."""
    key = folder / "service-account.key"
    return [
        str(programs / "kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={FIRST.addresses[0]}",
        f"--advertise-address={FIRST.addresses[0]}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-cluster-ip-range={','.join(SERVICES)}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        # Without what it does all the while and nobody asks for: how many objects etcd has, and how large they are.
        "--etcd-count-metric-poll-period=0s",
        "--feature-gates=SizeBasedListCostEstimate=false",
    ]


def controller_manager(programs: Path, folder: Path) -> list[str]:
    """Make kube-controller-manager's command."""
    return [
        str(programs / "kube-controller-manager"),
        f"--kubeconfig={folder / 'kube-controller-manager.json'}",
        "--secure-port=0",  # nobody asks it, and it would make a key for that
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={folder / 'service-account.key'}",
        f"--root-ca-file={folder / 'certificates' / 'apiserver.crt'}",
    ]


def scheduler(programs: Path, folder: Path) -> list[str]:
    """Make kube-scheduler's command."""
    credentials = f"--kubeconfig={folder / 'kube-scheduler.json'}"
    return [str(programs / "kube-scheduler"), credentials, "--secure-port=0", "--leader-elect=false"]


def kubelet_command(place: Place, programs: Path, folder: Path) -> list[str]:
    """Make a kubelet's command."""
    return [
        str(programs / "kubelet"),
        f"--config={folder / 'kubelet-config.json'}",
        f"--kubeconfig={folder / 'kubelet.json'}",
        f"--hostname-override={place.name}",
        f"--node-ip={','.join(place.addresses)}",
    ]


def kube_proxy_command(programs: Path, folder: Path) -> list[str]:
    """Make kube-proxy's command."""
    return [str(programs / "kube-proxy"), f"--config={folder / 'kube-proxy-config.json'}"]
