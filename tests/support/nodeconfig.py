"""What the parts of a Kubernetes node are told: settings that a node in namespaces of its own needs, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "node1"
ADDRESS = "10.77.0.2"  # of the node; the API server and the kubelet listen there
PODS = "10.244.1.0/24"
SERVICES = "10.96.0.0/16"
CONTAINERD = "/usr/bin/containerd"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CTR = "/usr/bin/ctr"

# An interface that is up, with an address that may be advertised, and a default route, without which a process on the node
# could not so much as begin to connect to a Service. Nothing answers at the other end.
NETWORK = (
    "link add eth0 type veth peer name uplink",
    f"address add {ADDRESS}/24 dev eth0",
    "link set uplink up",
    "link set eth0 up",
    "route add default via 10.77.0.1",
)
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "k8s",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

# Static tokens stand in for client certificates: users, groups and what RBAC lets them do are those of a usual cluster.
USERS = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NAME}", "system:nodes"),
}


def token(user: str) -> str:
    """Make up a user's token, for a server that nobody can reach from outside the node."""
    return f"token-of-{user}"


def tokens() -> str:
    """Make the API server's list of them: token, name, uid, group."""
    return "".join(f"{token(user)},{name},{name},{group}\n" for user, (name, group) in USERS.items())


def kubeconfig(certificate: Path, bearer: str) -> dict[str, Any]:
    """Make a kubeconfig."""
    cluster = {"server": f"https://{ADDRESS}:6443", "certificate-authority": str(certificate)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": bearer}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
        "current-context": "tests",
    }


def containerd(pause: str, conf_dir: Path, bin_dir: Path, *, snapshotter: str = "overlayfs") -> str:
    """Make containerd's configuration.

    Its root is in the machine's own /run, in memory, and goes with it. restrict_oom_score_adj: without CAP_SYS_RESOURCE no
    score can be lowered, and every sandbox would fail.
    """
    return f"""\
version = 2
root = "/run/containerd-root"
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{conf_dir}"
    bin_dir = "{bin_dir}"
"""


def kubelet(cgroup: str, resolv_conf: Path) -> dict[str, Any]:
    """Make the kubelet's configuration (kubelet.config.k8s.io/v1beta1).

    Whoever can reach it may use it, and only the node and its pods can: then `kubectl exec` and `logs` need no certificates.
    failCgroupV1: since 1.35 it would refuse a machine with cgroups of version 1, or of both. cgroupRoot has to exist.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDNS": ["10.96.0.10"],  # nobody answers there: the tests' programs know addresses alone
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolv_conf),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }


def kube_proxy(credentials: Path) -> dict[str, Any]:
    """Make kube-proxy's configuration (kubeproxy.config.k8s.io/v1alpha1): 0 leaves the machine's conntrack alone."""
    conntrack = {"maxPerCore": 0, "min": 0} | dict.fromkeys(
        ("tcpEstablishedTimeout", "tcpCloseWaitTimeout", "udpTimeout", "udpStreamTimeout"), "0s"
    )
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(credentials)},
        "clusterCIDR": PODS,
        "hostnameOverride": NAME,
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
        f"--bind-address={ADDRESS}",
        f"--advertise-address={ADDRESS}",
        f"--cert-dir={folder / 'certificates'}",  # it makes them
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def _controller_manager(programs: Path, folder: Path) -> list[str]:
    return [
        str(programs / "kube-controller-manager"),
        f"--kubeconfig={folder / 'kube-controller-manager.json'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={folder / 'service-account.key'}",
        f"--root-ca-file={folder / 'certificates' / 'apiserver.crt'}",
    ]


def _scheduler(programs: Path, folder: Path) -> list[str]:
    credentials = f"--kubeconfig={folder / 'kube-scheduler.json'}"
    return [str(programs / "kube-scheduler"), credentials, "--bind-address=127.0.0.1", "--leader-elect=false"]


def _kubelet(programs: Path, folder: Path) -> list[str]:
    return [
        str(programs / "kubelet"),
        f"--config={folder / 'kubelet-config.json'}",
        f"--kubeconfig={folder / 'kubelet.json'}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
    ]


def _kube_proxy(programs: Path, folder: Path) -> list[str]:
    return [str(programs / "kube-proxy"), f"--config={folder / 'kube-proxy-config.json'}"]


OTHERS: dict[str, Callable[[Path, Path], list[str]]] = {  # what starts once the API server is ready
    "kube-controller-manager": _controller_manager,
    "kube-scheduler": _scheduler,
    "kubelet": _kubelet,
    "kube-proxy": _kube_proxy,
}
