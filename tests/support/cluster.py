"""A real Kubernetes API server with its etcd, on loopback, for as long as a test session needs them.

There is no kubelet and no controller: a Pod that is created with `spec.nodeName` set is all that an agent sees of one.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from kubernetes import client
from kubernetes.config import new_client_from_config

from tests.programs.build import is_built
from tests.programs.lots import KUBE
from tests.support import golang, keys
from tests.support.admin import Admin
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

ETCD = "/usr/bin/etcd"
SLOWEST_START = 120.0  # seconds
SLOWEST_STOP = 60.0
# Without what it does all the while and nobody asks for: how many objects etcd has, how large they are, where it is.
QUIET = (
    "--etcd-count-metric-poll-period=0s",
    "--feature-gates=SizeBasedListCostEstimate=false",
    "--endpoint-reconciler-type=none",
)

_ADMIN_TOKEN = "admin-of-the-tests"  # noqa: S105 - of a server that lives for one test session on loopback
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


class Cluster:
    """etcd and kube-apiserver, RBAC on; what they log is kept in the folder."""

    def __init__(
        self,
        folder: Path,
        *,
        etcd: str = ETCD,
        options: Sequence[str] = QUIET,
        environment: Mapping[str, str] = golang.SERVER,
    ) -> None:
        """Prepare.

        Args:
            folder: for data, certificates, logs and kubeconfigs.
            etcd: the program.
            options: of the API server, besides those that it always has.
            environment: of both, besides this process's.
        """
        self.folder = folder
        self._options = options
        self._environment = {**os.environ, **environment}
        self._etcd_program = etcd
        self._etcd_port, self._peer_port, self.port = _free_ports(3)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._apiserver: subprocess.Popen[bytes] | None = None
        self._audit_log = folder / "audit.log"
        self._audited: list[dict[str, Any]] = []  # its entries, as far as it has been read
        self._audited_bytes = 0
        self._applied: dict[
            str, tuple[Mapping[str, Any], str]
        ] = {}  # by path: what kubectl applied, the resourceVersion

    def start(self) -> Self:
        """Start both and wait until the API server is ready.

        Raises:
            AssertionError: with the ends of their logs, if it is not in time.
        """
        assert is_built(KUBE), f"no Kubernetes in {KUBE.folder}; `make kube` builds it"
        self._write_files()
        self._etcd = self._run(
            "etcd",
            self._etcd_program,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer_port}",
            f"--initial-cluster=default=http://127.0.0.1:{self._peer_port}",
            "--unsafe-no-fsync",  # it lives as long as the tests
        )
        self.start_apiserver()
        kubeconfig = str(self.kubeconfig("admin", token=_ADMIN_TOKEN))
        self.core = client.CoreV1Api(new_client_from_config(kubeconfig))  # type: ignore[no-untyped-call]
        self.admin = Admin(f"https://127.0.0.1:{self.port}", _ADMIN_TOKEN, self.certificate)
        until(lambda: self.admin.read("/api/v1/namespaces/default"), SLOWEST_START, "the namespace `default` is there")
        return self

    def start_apiserver(self) -> None:
        """Start the API server, on the same port each time, and wait until it is ready."""
        certificates, key = self.folder / "certificates", self.folder / "service-account.key"
        self._apiserver = self._run(
            "kube-apiserver",
            str(KUBE.folder / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={certificates}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # no controller makes the accounts `default` here
            f"--audit-policy-file={self.folder / 'audit-policy.json'}",
            f"--audit-log-path={self._audit_log}",
            *self._options,
        )
        until(self._is_ready, SLOWEST_START, "the API server is ready")

    def kill_apiserver(self) -> None:
        """End the API server as a power cut would; etcd keeps what was written."""
        assert self._apiserver
        self._apiserver.kill()
        self._apiserver.wait()

    @property
    def is_running(self) -> bool:
        """Whether the API server was started and has not ended."""
        return self._apiserver is not None and self._apiserver.poll() is None

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of both, by program."""
        running = {"etcd": self._etcd, "kube-apiserver": self._apiserver}
        return {name: process.pid for name, process in running.items() if process}

    def stop(self) -> None:
        """End both."""
        for process in (self._apiserver, self._etcd):
            if process and process.poll() is None:
                process.kill()
                process.wait(SLOWEST_STOP)

    @property
    def certificate(self) -> Path:
        """What the API server is known by; it stays the same when the server is started again."""
        return self.folder / "certificates" / "apiserver.crt"

    def kubeconfig(
        self, name: str, *, token: str | None = None, token_file: Path | None = None, port: int | None = None
    ) -> Path:
        """Write a kubeconfig.

        Args:
            name: of the file, without its suffix.
            token: a bearer token, or
            token_file: a file that holds one and may be written again.
            port: that of something in front of the API server, on loopback.
        """
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": f"https://127.0.0.1:{port or self.port}", "certificate-authority": str(self.certificate)}
        user = {"token": token} if token else {"tokenFile": str(token_file)}
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
            "current-context": "tests",
        }
        path.write_text(json.dumps(written))
        return path

    def service_account(self, namespace: str, name: str, *, verbs: str = "", resource: str = "") -> None:
        """Create a service account that may do this, in all namespaces, and nothing else.

        Args:
            namespace: its namespace.
            name: its name.
            verbs: what it may do, with commas between them, such as `get,list`; empty: nothing.
            resource: to what, with commas between them, such as `pods,daemonsets.apps`.
        """
        self.admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        if verbs:
            self.grant(namespace, name, verbs=verbs, resource=resource)

    def grant(self, namespace: str, name: str, *, verbs: str, resource: str) -> None:
        """Let a service account do this, in all namespaces; arguments as those of `service_account`."""
        metadata = {"name": f"{namespace}:{name}"}
        kinds = [each.partition(".") for each in resource.split(",")]
        rules = [{"apiGroups": [group], "resources": [kind], "verbs": verbs.split(",")} for kind, _, group in kinds]
        binding = {
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
        }
        self.admin.create(f"{_RBAC}/clusterroles", {"metadata": metadata, "rules": rules})
        self.admin.create(f"{_RBAC}/clusterrolebindings", binding)

    def token(self, namespace: str, name: str) -> str:
        """Have the API server issue a token for a service account, as the kubelet does for a pod (TokenRequest)."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return str(self.admin.create(path, asked)["status"]["token"])

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl as the admin, with this text on stdin, and return its stdout."""
        command = self.kubectl_command(f"--kubeconfig={self.folder / 'admin.kubeconfig'}", *arguments)
        done = subprocess.run(
            command,
            input=text,
            env=os.environ | golang.COMMAND,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Run `kubectl apply` for those that are not as it left them: for all, it would take a second to see that they are."""
        changed = []
        for each in objects:
            applied, version = self._applied.get(self.admin.path(each), ({}, ""))
            if applied != each or self.admin.version(self.admin.path(each)) != version:
                changed.append(each)
        if changed:
            written = json.dumps({"apiVersion": "v1", "kind": "List", "items": changed})
            told = json.loads(self.kubectl("apply", "--filename=-", "--output=json", text=written))
            for each, made in zip(changed, told["items"] if told["kind"] == "List" else [told], strict=True):
                self._applied[self.admin.path(each)] = each, made["metadata"]["resourceVersion"]

    def forget_namespace(self, name: str) -> None:
        """Delete a namespace whose objects have been deleted: no controller does it here."""
        path = f"/api/v1/namespaces/{name}"
        self.admin.delete(path)
        if found := self.admin.read(path):
            self.admin.update(f"{path}/finalize", found | {"spec": {"finalizers": []}})

    def kubectl_command(self, *arguments: str) -> list[str]:
        """Make a command of kubectl's, for what is not the admin's."""
        return [str(KUBE.folder / "kubectl"), *arguments]

    def requests_of(self, account: str, *, stage: str = "RequestReceived") -> Iterator[dict[str, Any]]:
        """Yield the audit log's entry for each request that a service account's token came with, oldest first.

        Args:
            account: `system:serviceaccount:<namespace>:<name>`.
            stage: of the request; at `ResponseComplete` the entry has the answer's code.
        """
        self._read_on()
        for entry in self._audited:
            if entry["stage"] == stage and entry["user"]["username"] == account:
                yield entry

    def _read_on(self) -> None:
        """Read what the audit log has more than at the last look, but no line that is being written."""
        if self._audit_log.exists():
            with self._audit_log.open("rb") as log:
                log.seek(self._audited_bytes)
                whole = log.read().rpartition(b"\n")[0].splitlines(keepends=True)
            self._audited += map(json.loads, whole)
            self._audited_bytes += len(b"".join(whole)) + bool(whole)  # and the last line's end

    def logs(self) -> str:
        """Return the ends of both logs."""
        return "\n".join(f"--- the end of {log}:\n{_end(log)}" for log in sorted(self.folder.glob("*.process.log")))

    def _run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        # The kernel ends it with the thread that starts it, however that ends: start it from the main one.
        with (self.folder / f"{name}.process.log").open("ab") as log:
            return subprocess.Popen(
                ["/usr/bin/setpriv", "--pdeathsig", "KILL", *command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tokens.csv").write_text(f"{_ADMIN_TOKEN},admin,admin,system:masters\n")
        (self.folder / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
        keys.write_signing_key(self.folder / "service-account.key")
        keys.write_certificate(self.certificate.parent, ["127.0.0.1"])

    def _is_ready(self) -> bool:
        for process in (self._etcd, self._apiserver):
            assert process
            assert process.poll() is None, f"{process.args!r} ended with {process.returncode}\n{self.logs()}"
        try:
            context = ssl.create_default_context(cafile=str(self.certificate))
            asked = urllib.request.Request(
                f"https://127.0.0.1:{self.port}/readyz", headers={"Authorization": f"Bearer {_ADMIN_TOKEN}"}
            )
            with urllib.request.urlopen(asked, timeout=30, context=context) as answer:  # noqa: S310 - https
                return bool(answer.status == 200)
        except OSError:
            return False

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _end(log: Path, lines: int = 40) -> str:
    text = log.read_text(errors="replace")
    return "\n".join(re.sub(r"\s+$", "", line) for line in text.splitlines()[-lines:])
