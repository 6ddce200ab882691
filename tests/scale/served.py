"""What the API server counts of itself: requests that it has served, those it has turned away, and what it asked of etcd."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUESTS = "apiserver_request_total"
_TURNED_AWAY = "apiserver_flowcontrol_rejected_requests_total"
_ETCD = "etcd_request_duration_seconds_count"
_LINE = re.compile(rf"^({_REQUESTS}|{_TURNED_AWAY}|{_ETCD})\{{(.*)\}} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

STATUS_WRITES = "PATCH istiocontrolplanes/status 200"  # the controller's: nobody else writes them


def served(metrics: str) -> Counter[str]:
    """Read /metrics: how many of each kind until now.

    Returns:
        Requests by verb, resource and status code, such as `LIST pods 200`; those that API Priority and Fairness turned away,
        by its level and why, such as `turned away: workload-low queue-full`; and what was asked of etcd, such as
        `etcd: list pods`.
    """
    found: Counter[str] = Counter()
    for name, count in _counts(metrics):
        found[name] += count
    return found


def _counts(metrics: str) -> Iterator[tuple[str, int]]:
    for metric, labelled, value in _LINE.findall(metrics):
        label = dict(_LABEL.findall(labelled))
        count = int(float(value))
        if metric == _REQUESTS:
            verb = "PATCH" if label["verb"] == "APPLY" else label["verb"]
            kind = "/".join(filter(None, (label["resource"] or "others", label["subresource"])))
            yield f"{verb} {kind} {label['code']}", count
        elif metric == _TURNED_AWAY:
            yield f"turned away: {label['priority_level']} {label['reason']}", count
        else:
            kind = label.get("resource") or label.get("type", "")
            yield f"etcd: {label['operation']} {kind}", count
