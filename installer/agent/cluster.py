"""The agent's view of the cluster: the desired state it applies, the status it reports, its actions on pods."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from installer.agent.control_planes import ControlPlanes
from installer.agent.node_reporter import NodeResource
from installer.agent.shutdown import why_to_uninstall
from installer.agent.succession import UnclearError, Whose, why_to_give_way
from installer.aio import either, in_thread
from installer.config.desired import DesiredState, resolve_desired_state
from installer.host.checkpoint import load, save
from installer.host.istios_agent import runs_beside
from installer.kube.api_error import ApiError
from installer.kube.client import PODS_PATIENCE, ApiClient
from installer.kube.event_queue import EventQueue
from installer.kube.event_recorder import EventRecorder
from installer.kube.names import DAEMONSET, cleaning_command
from plugin.pod import ManifestError, Pod

if TYPE_CHECKING:
    from collections.abc import Callable

    from installer.agent.node_status import Observed
    from installer.aio import Changes
    from installer.config.istio_chart import IstioChart
    from installer.config.settings import Settings
    from installer.host.in_force import InForce

ASK_AGAIN = 30.0  # seconds for which pod repair does not ask an API server that has not answered it

_log = logging.getLogger(__name__)


class Cluster:
    """Reads the desired state from the cluster and reports the node's status."""

    def __init__(
        self,
        settings: Settings,
        in_force: InForce,
        apply: Callable[[DesiredState], None],
        observe: Callable[[], Observed],
        changes: Changes,
        *,
        istio_chart: IstioChart | None = None,
    ) -> None:
        """Prepare; `run` begins.

        `settings` are the chart's. Where Istio's own chart runs the agent, `istio_chart`, its role allows no object of
        ours.
        """
        self._settings = settings
        self._in_force = in_force
        self._apply = apply
        self._changes = changes
        self._api = ApiClient(settings.kubeconfig)
        self._control_planes = ControlPlanes(self._api, settings.kubeconfig, self._update)
        self._istio_chart = istio_chart
        recorder = EventRecorder(self._api, DAEMONSET, settings.node_name, is_core=istio_chart is not None)
        self._events = EventQueue(recorder)
        planes = self._control_planes
        self._node = NodeResource(
            settings.node_name, self._api, self._events, observe, changes.listen(), nodes=lambda: planes.nodes
        )
        self._desired = in_force.desired
        self._has_read = False
        if not istio_chart:
            self._desired = in_force.desired = load(settings)
            in_force.is_known = False
        self._unsaved = asyncio.Event()  # the desired state is not in the checkpoint yet
        self._handlers: dict[str, str] = {}  # by RuntimeClass name
        self._outage: ApiError | None = None  # why the API server did not answer pod repair last
        self._ask_again_at = 0.0

    @property
    def why_unknown(self) -> str | None:
        """Why the IstioControlPlanes are not known, without which no running pod is repaired or counted; None if they are."""
        return None if self._in_force.is_known else self._control_planes.reason

    async def run(self, stop: asyncio.Event) -> None:
        """Watch the resources, report the status and deliver Events until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._events.run(stop))
            tasks.create_task(self._keep_saving(stop))
            if self._istio_chart:
                return
            reporting = tasks.create_task(self._node.run())
            await self._control_planes.run(stop)
            reporting.cancel()

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def why_to_give_way(self) -> str:
        """Return why an agent that starts should not install: another has taken its place. Empty if none has, or if unclear."""
        if not (whose := self._whose()) or not runs_beside(self._settings.agent_socket):
            return ""
        try:
            return await why_to_give_way(self._api, whose)
        except (ApiError, UnclearError) as error:
            message = "Istio's own agent runs on this node, and it is unclear whether it has taken this one's place: installing"
            _log.warning(message, extra={"reason": str(error)})
            return ""

    async def why_to_uninstall(self, until: float) -> str:
        """Return why a stopping agent should uninstall; empty if it should not. Give up at the loop time `until`."""
        if not (whose := self._whose()):
            return ""
        settings = self._desired.settings
        command = cleaning_command(settings.node_name, "", (settings.cni_conf_dir, settings.cni_bin_dir))
        remedy = f"if no agent returns to this node, uninstall with the agent's image as IMAGE: {command}"
        beside_istios = runs_beside(settings.agent_socket)
        return await why_to_uninstall(self._api, whose, until, remedy, beside_istios=beside_istios)

    def _whose(self) -> Whose | None:
        settings, chart = self._settings, self._istio_chart
        if settings.daemonset is None:
            return None
        name = chart.pod_name if chart else ""
        return Whose(settings.daemonset, settings.node_name, settings.pod_uid, bool(chart), name)

    async def report(self, until: float) -> None:
        """Report once more, unless that takes longer than the loop time `until`."""
        if self._istio_chart:
            return
        with suppress(ApiError, TimeoutError):
            async with asyncio.timeout_at(until):
                await self._node.write()
                await self._events.deliver()

    def record(self, pod: Pod, reason: str, note: str, *, warning: bool) -> None:
        """Have an Event about a pod written."""
        if self._istio_chart and not self._istio_chart.writes_events:
            return
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
        self._events.add(about, reason, note, warning=warning)

    async def handler_of(self, runtime_class: str) -> str:
        """Return the runtime handler of a RuntimeClass; empty if it is unknown.

        A handler is immutable (`validation.ValidateRuntimeClassUpdate`), so each class is requested once.
        """
        if runtime_class not in self._handlers and not self._istio_chart:
            with suppress(ApiError):
                found = await self._ask(f"/apis/node.k8s.io/v1/runtimeclasses/{quote(runtime_class, safe='')}")
                handler = found.get("handler") if isinstance(found, dict) else ""
                self._handlers[runtime_class] = handler if isinstance(handler, str) else ""
        return self._handlers.get(runtime_class, "")

    async def confirm(self, pod: Pod) -> str:
        """Check that a pod still runs with the same uid and addresses; return the difference, or an empty text."""
        try:
            found = await self._ask(f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}")
            now = Pod.from_manifest(found) if found else None
        except (ApiError, ManifestError) as error:
            return f"its addresses cannot be confirmed: {error}"
        same = now is not None and now.running and not now.terminating and (now.uid, now.ips) == (pod.uid, pod.ips)
        return "" if same else "its uid, addresses or state in the API server have changed"

    async def delete_pod(self, pod: Pod) -> str:
        """Delete a pod that a controller will recreate; return why that was not possible, or an empty text."""
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        try:
            found = await self._ask(path)
            if found is None or found["metadata"]["uid"] != pod.uid:
                return ""
            if not any(each.get("controller") for each in found["metadata"].get("ownerReferences") or ()):
                return "no controller would start it again; delete it by hand"
            await self._api.delete(path, pod.uid)
        except ApiError as error:
            hint = (
                "; helm upgrade --set cni.repairMode=delete gives the agents the right" if error.status == 403 else ""
            )
            return f"{error}{hint}"
        return ""

    async def _ask(self, path: str) -> Any | None:
        """Read an object for pod repair, which checks one pod after the other: while nobody answers, the next do not wait.

        Raises:
            ApiError: as `ApiClient.get` does.
        """
        loop = asyncio.get_running_loop()
        if self._outage and loop.time() < self._ask_again_at:
            raise self._outage.with_traceback(None)  # which would grow with each of them
        self._outage = None
        try:
            return await self._api.get(path, patience=PODS_PATIENCE)
        except ApiError as error:
            if error.is_transient:
                self._outage, self._ask_again_at = error, loop.time() + max(ASK_AGAIN, error.retry_after)
            raise

    async def _keep_saving(self, stop: asyncio.Event) -> None:
        """Write the checkpoint after each change, also of a moment before `stop` is set."""
        while not stop.is_set() or self._unsaved.is_set():
            await either(stop, self._unsaved)
            if self._unsaved.is_set():
                self._unsaved.clear()
                await in_thread(stop, partial(save, self._desired))

    def _update(self) -> None:
        """Apply the resources as they are now."""
        self._in_force.is_known = True
        self._changes.notify()
        if not self._control_planes.known:
            return  # the kind is not installed
        resources, last = self._control_planes.resources, self._desired
        # Before the first resource nothing proves a deletion: the checkpoint may be of an earlier release.
        before = last if self._has_read or resources else DesiredState(self._settings)
        self._has_read = True
        self._desired = resolve_desired_state(self._settings, resources, before)
        if self._desired == last:
            return
        plane = self._desired.control_plane
        extra = {"namespace": plane.namespace, "resource": plane.name, "generation": plane.generation} if plane else {}
        for each in self._desired.problems:
            _log.error("invalid IstioControlPlane: keeping the last good settings", extra=extra | {"reason": str(each)})
        if replace(self._desired, problems=()) != replace(last, problems=()):
            _log.warning("applying the IstioControlPlane", extra=extra | {"reason": self._desired.reason})
            self._unsaved.set()
        self._apply(self._desired)
