"""Which programs the tests build: Kubernetes and helm, etcd, Istio, a node's parts newer than Debian's, and judges."""

from __future__ import annotations

from tests.programs.program import SOURCE, Files, Lot, Program, stated

KUBERNETES = (
    "kube-apiserver",
    "kubectl",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
# As Istio's own Makefile has it for what runs beside applications.
_AGENT_TAGS = ("agent", "disable_pgv", "grpcnotrace", "retrynotrace")


def _version(folder: str, module: str) -> str:
    return stated(SOURCE / folder, rf"^\s*(?:require )?{module} (v\S+)")


def _release(version: str) -> tuple[str, str]:
    major, minor = version.removeprefix("v").split(".")[:2]
    return major, minor


def _of_kubernetes(name: str) -> Program:
    major, minor = _release(_KUBERNETES_VERSION)
    facts = {"gitVersion": _KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return Program(
        name,
        SOURCE / "kube",
        f"k8s.io/kubernetes/cmd/{name}",
        _KUBERNETES_VERSION,
        {f"{package}.{fact}": value for package in packages for fact, value in facts.items()},
        ("version", "--client") if name == "kubectl" else ("--version",),
    )


def _helm() -> Program:
    # As its own Makefile has it: the Kubernetes that templates are told of where no server is asked is that of its client.
    _, minor = _release(_version("helm", r"k8s\.io/client-go"))
    kubernetes = {"k8sVersionMajor": "1", "k8sVersionMinor": minor}
    packages = ("helm.sh/helm/v3/pkg/lint/rules", "helm.sh/helm/v3/pkg/chartutil")
    stamped = {f"{package}.{fact}": value for package in packages for fact, value in kubernetes.items()}
    stamped["helm.sh/helm/v3/internal/version.version"] = _HELM_VERSION
    return Program("helm", SOURCE / "helm", "helm.sh/helm/v3/cmd/helm", _HELM_VERSION, stamped, ("version", "--short"))


def _of_istio(path: str, *asked: str, tags: tuple[str, ...] = ()) -> Program:
    name = path.rpartition("/")[2]
    stamped = {"istio.io/istio/pkg/version.buildVersion": _ISTIO_RELEASE}
    return Program(name, SOURCE / "istio", f"istio.io/istio/{path}", _ISTIO_RELEASE, stamped, asked, tags)


def _of_containerd(name: str) -> Program:
    module = "github.com/containerd/containerd/v2"
    stamped = {f"{module}/version.Version": _CONTAINERD_VERSION}
    return Program(name, SOURCE / "containerd", f"{module}/cmd/{name}", _CONTAINERD_VERSION, stamped, ("-v",))


def _cni_plugin(path: str) -> Program:
    module, version = (
        "github.com/containernetworking/plugins",
        _version("cniplugins", r"\S+/containernetworking/plugins"),
    )
    stamped = {f"{module}/pkg/utils/buildversion.BuildVersion": version}
    return Program(path.rpartition("/")[2], SOURCE / "cniplugins", f"{module}/plugins/{path}", version, stamped, ())


def _runc() -> Program:
    module = "github.com/opencontainers/runc"
    version = _version("runc", module).removeprefix("v")
    # Without seccomp it would start no pod of a namespace under Pod Security `restricted`.
    return Program("runc", SOURCE / "runc", module, version, tags=("seccomp", "urfave_cli_no_docs"), uses_c=True)


def _coredns() -> Program:
    module = "github.com/coredns/coredns"
    version = _version("coredns", module).removeprefix("v")
    return Program("coredns", SOURCE / "coredns", ".", version, asked=("-version",))


def _critest() -> Program:
    module = "sigs.k8s.io/cri-tools"
    stamped = {f"{module}/pkg/version.Version": _CRI_TOOLS_VERSION}
    package = f"{module}/cmd/critest"
    return Program(
        "critest", SOURCE / "critest", package, _CRI_TOOLS_VERSION, stamped, asked=("-version",), is_test=True
    )


def _conformance() -> tuple[Program, ...]:
    where, images = SOURCE / "conformance", "k8s.io/kubernetes/test/images"
    version = _CONFORMANCE_VERSION
    stamped = {"k8s.io/component-base/version.gitVersion": version}
    ginkgo = _version("conformance", "github.com/onsi/ginkgo/v2").removeprefix("v")
    return (
        Program("e2e.test", where, "k8s.io/kubernetes/test/e2e", version, stamped, is_test=True),
        Program("ginkgo", where, "github.com/onsi/ginkgo/v2/ginkgo", ginkgo, asked=("version",)),
        Program("agnhost", where, f"{images}/agnhost", version, {"main.Version": version}),
    )


def _helm4() -> Program:
    version = _version("helm4", r"helm\.sh/helm/v4")
    stamped = {"helm.sh/helm/v4/internal/version.version": version}
    return Program("helm", SOURCE / "helm4", "helm.sh/helm/v4/cmd/helm", version, stamped, ("version", "--short"))


_KUBERNETES_VERSION = _version("kube", r"k8s\.io/kubernetes")
_HELM_VERSION = _version("helm", r"helm\.sh/helm/v3")
_ETCD_VERSION = _version("etcd", r"go\.etcd\.io/etcd/server/v3")
_CONTAINERD_VERSION = _version("containerd", r"github\.com/containerd/containerd/v2")
_CRI_TOOLS_VERSION = _version("critest", r"sigs\.k8s\.io/cri-tools")
_CONFORMANCE_VERSION = _version("conformance", r"k8s\.io/kubernetes")
_ISTIO_VERSION = _version("istio", r"istio\.io/istio")
# Its proxies read features off their release, and its module is served under no tag: the release that is next, and the commit.
_ISTIO_RELEASE = f"1.32.0-{_ISTIO_VERSION.rpartition('-')[2]}"

KUBE = Lot(
    "kube",
    _KUBERNETES_VERSION,
    f"Kubernetes {_KUBERNETES_VERSION} and helm {_HELM_VERSION}",
    (*map(_of_kubernetes, KUBERNETES), _helm()),
    "a quarter of an hour",
)
ETCD = Lot(
    "etcd",
    _ETCD_VERSION,
    f"etcd {_ETCD_VERSION}",
    (Program("etcd", SOURCE / "etcd", "go.etcd.io/etcd/server/v3", _ETCD_VERSION.removeprefix("v")),),
    "two minutes",
)
ISTIO = Lot(
    "istio",
    _ISTIO_VERSION,
    f"Istio {_ISTIO_RELEASE}",
    (
        _of_istio("pilot/cmd/pilot-discovery", "version", "--short"),
        _of_istio("pilot/cmd/pilot-agent", "version", "--short"),
        _of_istio("istioctl/cmd/istioctl", "version", "--short", "--remote=false"),
        _of_istio("cni/cmd/install-cni", "version", "--short"),
        _of_istio("cni/cmd/istio-cni", tags=_AGENT_TAGS),
    ),
    "ten minutes",
    (
        Files("charts", SOURCE / "istio", "istio.io/istio", "manifests/charts"),
        Files(
            "envoy_bootstrap.json", SOURCE / "istio", "istio.io/istio", "tools/packaging/common/envoy_bootstrap.json"
        ),
    ),
)
NODE = Lot(
    "node",
    _CONTAINERD_VERSION,
    f"a node's parts newer than Debian's: containerd {_CONTAINERD_VERSION}, runc, CNI plugins, CoreDNS, helm 4",
    (
        *map(_of_containerd, ("containerd", "ctr", "containerd-shim-runc-v2")),
        _runc(),
        *map(_cni_plugin, ("main/bridge", "main/loopback", "ipam/host-local", "meta/portmap")),
        _coredns(),
        _helm4(),
    ),
    "five minutes",
)
JUDGES = Lot(
    "judges",
    _CRI_TOOLS_VERSION,
    f"the judge of container runtimes, critest {_CRI_TOOLS_VERSION}",
    (_critest(),),
    "two minutes",
)
CONFORMANCE = Lot(
    "conformance",
    _CONFORMANCE_VERSION,
    f"the end-to-end suite of Kubernetes {_CONFORMANCE_VERSION}, what runs it, and the image that it asks for most",
    _conformance(),
    "ten minutes",
    tuple(
        Files(name, SOURCE / "conformance", "k8s.io/kubernetes", f"test/images/agnhost/porter/{name}")
        for name in ("localhost.crt", "localhost.key")
    ),
)
LOTS = {lot.name: lot for lot in (KUBE, ETCD, ISTIO, NODE, JUDGES, CONFORMANCE)}
