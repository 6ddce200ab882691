"""What the kubelet does with a container runtime: pods and their containers over CRI v1 (k8s.io/cri-api)."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc  # type: ignore[import-untyped]
from cri_api.v1 import api_pb2 as api
from cri_api.v1.api_pb2_grpc import ImageServiceStub, RuntimeServiceStub

from tests.support.machine import checked, run_in
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tests.support.machine import Machine

SLOWEST = 60.0  # seconds that any call may take; an ADD may wait 20 for the agent


class CriError(Exception):
    """The runtime refused a call; the text is the runtime's own."""


class SandboxError(CriError):
    """A pod's sandbox did not come up; the text holds the `msg` of the CNI plugin that failed."""


@dataclass(frozen=True)
class Container:
    """One that was started in a pod."""

    runtime: Runtime
    id: str
    log_file: Path

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        status = self.runtime.call("ContainerStatus", api.ContainerStatusRequest(container_id=self.id)).status
        return bool(status.state == api.CONTAINER_RUNNING)

    def log(self) -> str:
        """What it wrote to stdout and stderr, without the times that CRI's log format puts before each line."""
        return "\n".join(line.split(" ", 3)[3] for line in self.log_file.read_text().splitlines())

    def wait_for_log(self, text: str, within: float = SLOWEST) -> None:
        """Wait until it has written this.

        Raises:
            AssertionError: with its log, if it ends before or is not in time.
        """

        def has_written() -> bool:
            alive = self.running
            assert text in self.log() or alive, f"it ended before it wrote {text!r}; its log:\n{self.log()}"
            return text in self.log()

        until(has_written, within, f"{text!r} in {self.log_file}")

    def exec(self, command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a further command in it, as its user; `check` and error are those of `run_in`."""
        request = api.ExecSyncRequest(container_id=self.id, cmd=command, timeout=int(SLOWEST))
        done = self.runtime.call("ExecSync", request)
        ended = subprocess.CompletedProcess([*command], done.exit_code, done.stdout.decode(), done.stderr.decode())
        return checked(ended) if check else ended


@dataclass(frozen=True)
class Pod:
    """A sandbox that is up; its network was set up by the CNI chain."""

    runtime: Runtime
    id: str
    config: api.PodSandboxConfig
    ips: tuple[str, ...]
    netns: Path

    def run(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        *,
        uid: int = 0,
        gid: int = 0,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
        propagated: Collection[str] = (),
    ) -> Container:
        """Create and start a container, without any capability.

        Args:
            name: the container's name, unique in the pod.
            image: the reference of an image that the node has.
            command: argv.
            uid: what it runs as.
            gid: its group.
            env: its variables.
            mounts: files of the machine and where the container sees them, read-only.
            propagated: where it is to see what the machine mounts there later.

        Raises:
            CriError: if it does not start.
        """
        log_path = f"{name}.log"
        config = api.ContainerConfig(
            metadata=api.ContainerMetadata(name=name),
            image=api.ImageSpec(image=image),
            command=command,
            envs=[api.KeyValue(key=key, value=value) for key, value in (env or {}).items()],
            mounts=[
                api.Mount(
                    host_path=str(here),
                    container_path=there,
                    readonly=True,
                    propagation=api.PROPAGATION_HOST_TO_CONTAINER if there in propagated else api.PROPAGATION_PRIVATE,
                )
                for here, there in (mounts or {}).items()
            ],
            log_path=log_path,
            linux=api.LinuxContainerConfig(
                security_context=api.LinuxContainerSecurityContext(
                    run_as_user=api.Int64Value(value=uid),
                    run_as_group=api.Int64Value(value=gid),
                    capabilities=api.Capability(drop_capabilities=["ALL"]),
                )
            ),
        )
        request = api.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        created = self.runtime.call("CreateContainer", request).container_id
        self.runtime.call("StartContainer", api.StartContainerRequest(container_id=created))
        return Container(self.runtime, created, Path(self.config.log_directory) / log_path)

    def inside(
        self, command: Sequence[str], *, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the host's in the pod's network namespace, as root; all else is as with `run_in`."""
        return run_in(self.netns, command, stdin=stdin, check=check)

    def remove(self) -> None:
        """Stop and remove it, as the kubelet does with a deleted pod: the CNI chain gets its DEL."""
        self.runtime.remove_sandbox(self.id)


class Runtime:
    """The client of one runtime."""

    def __init__(self, socket: Path, machine: Machine, *, log_folder: Path) -> None:
        """Connect, at the first call.

        Args:
            socket: the runtime's, absolute.
            machine: what the runtime runs on; its cgroup is the parent of all pods'.
            log_folder: for what they write.
        """
        self._machine, self._log_folder = machine, log_folder
        self._channel = grpc.insecure_channel(f"unix://{socket}")
        self._runtime = RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._images = ImageServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Disconnect."""
        self._channel.close()

    def call(self, name: str, request: object, error: type[CriError] = CriError) -> Any:
        """Call a method of the runtime service, or else of the image service.

        Raises:
            CriError: or what `error` names: the runtime answered with an error.
        """
        stub = self._runtime if hasattr(self._runtime, name) else self._images
        method: Callable[..., Any] = getattr(stub, name)
        try:
            return method(request, timeout=SLOWEST)
        except grpc.RpcError as refused:
            raise error(f"{name}: {refused.details()}") from None

    def answers(self) -> bool:
        """Tell whether the runtime is there and has started."""
        try:
            self.call("Status", api.StatusRequest())
        except CriError:
            return False
        return True

    def network_ready(self) -> tuple[bool, str]:
        """Return the condition NetworkReady, which makes a node Ready, and its message."""
        conditions = self.call("Status", api.StatusRequest()).status.conditions
        ready = next(condition for condition in conditions if condition.type == "NetworkReady")
        return ready.status, ready.message

    def plugins_loaded(self) -> list[str]:
        """List the plugin types of the CNI configuration that the runtime has loaded, in the chain's order."""
        information = self.call("Status", api.StatusRequest(verbose=True)).info
        networks = json.loads(information["cniconfig"])["Networks"] or []
        chains = [network["Config"]["Plugins"] for network in networks if network["IFName"] != "lo"]
        return [plugin["Network"]["type"] for chain in chains for plugin in chain]

    def has_image(self, reference: str) -> bool:
        """Tell whether containers can be made of this image."""
        request = api.ImageStatusRequest(image=api.ImageSpec(image=reference))
        return bool(self.call("ImageStatus", request).HasField("image"))

    def run_sandbox(
        self, namespace: str, name: str, *, uid: str | None = None, annotations: Mapping[str, str] | None = None
    ) -> Pod:
        """Bring up a pod's sandbox.

        Args:
            namespace: the pod's namespace.
            name: its name.
            uid: its uid; by default a new one.
            annotations: its annotations.

        Raises:
            SandboxError: if its network or anything else cannot be set up.
        """
        uid = uid or str(uuid4())
        logs = self._log_folder / f"{namespace}_{name}_{uid}"
        config = api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(namespace=namespace, name=name, uid=uid),
            hostname=name,
            log_directory=str(logs),
            dns_config=api.DNSConfig(servers=["127.0.0.1"]),
            annotations=dict(annotations or {}),
            linux=api.LinuxPodSandboxConfig(cgroup_parent=f"/{self._machine.cgroup}"),
        )
        created = self.call("RunPodSandbox", api.RunPodSandboxRequest(config=config), SandboxError).pod_sandbox_id
        return self._pod(created, config)

    def _pod(self, sandbox: str, config: api.PodSandboxConfig) -> Pod:
        request = api.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
        answer = self.call("PodSandboxStatus", request)
        network = answer.status.network
        namespaces = json.loads(answer.info["info"])["runtimeSpec"]["linux"]["namespaces"]
        netns = next(space["path"] for space in namespaces if space["type"] == "network")
        ips = (network.ip, *(further.ip for further in network.additional_ips))
        return Pod(self, sandbox, config, ips, self._machine.seen(netns))

    def remove_sandbox(self, sandbox: str) -> None:
        """Stop and remove a pod, with its containers."""
        self.call("StopPodSandbox", api.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        self.call("RemovePodSandbox", api.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    def remove_all(self) -> None:
        """Remove every pod that the runtime knows."""
        for sandbox in self.call("ListPodSandbox", api.ListPodSandboxRequest()).items:
            self.remove_sandbox(sandbox.id)
