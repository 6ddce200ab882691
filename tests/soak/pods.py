"""Pods that come and go: each is added, looked into, checked and deleted, as a kubelet has it done."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING

from tests.soak.node import MESHED, PODS, REFUSED
from tests.support.netns import Netns

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.soak.ledger import Ledger
    from tests.soak.node import SoakNode
    from tests.support.call import Answer

TRIES = 5  # the kubelet tries for ever; a pod that no agent serves for that often 20 s is lost
WEIGHTS = {"meshed": 12, "tproxy": 3, "plain": 3, "invalid": 1, "oversized": 1}
_numbers = itertools.count(1)


async def one_pod(node: SoakNode, ledger: Ledger, chance: random.Random) -> None:
    """Run one pod."""
    number = next(_numbers)
    (kind,) = chance.choices([*PODS], [WEIGHTS[kind] for kind in PODS])
    netns = Netns(node.folder / f"netns{number}")
    await asyncio.to_thread(netns.__enter__)
    try:
        answer = await _add(node, kind, number, netns)
        rules = await asyncio.to_thread(netns.rules)
        for lost in _lost(kind, answer, rules):
            ledger.lose(*lost)
        if kind in MESHED and answer.status == 0:
            checked = await node.call("CHECK", kind, number, netns.path)
            if checked.status and _code(checked) != 11:
                ledger.lose("CHECK of a redirected pod fails", _said(checked))
        for path in (netns.path, None):  # as containerd does it, again and at last without a netns
            deleted = await node.call("DEL", kind, number, path)
            if deleted.status:
                ledger.lose("DEL fails", _said(deleted))
    finally:
        await asyncio.to_thread(netns.__exit__, None, None, None)
    ledger.done[f"pods, {kind}"] += 1


def _lost(kind: str, answer: Answer, rules: str) -> Iterator[tuple[str, str]]:
    """Say what is wrong with what a pod got, each with an example."""
    if kind in REFUSED:
        if answer.status == 0 or _code(answer) != 7:
            yield f"a pod that asks for what is not allowed ({kind}) is not refused", _said(answer)
        if rules:
            yield "a refused pod has rules", rules[:200]
    elif answer.status:
        yield f"a pod ({kind}) does not start", _said(answer)
    elif kind in MESHED and ("15006" not in rules or "15001" not in rules):
        yield "a meshed pod runs without its redirect", rules[:200]
    elif kind not in MESHED and rules:
        yield "a pod outside the mesh has rules", rules[:200]


async def _add(node: SoakNode, kind: str, number: int, netns: Netns) -> Answer:
    for _ in range(TRIES):
        answer = await node.call("ADD", kind, number, netns.path)
        if answer.status == 0 or _code(answer) != 11:
            break
    return answer


def _code(answer: Answer) -> int:
    try:
        return int(answer.json["code"])
    except (ValueError, LookupError):
        return -1


def _said(answer: Answer) -> str:
    try:
        return json.dumps(answer.json)[:300]
    except ValueError:
        return f"status {answer.status}, {answer.stderr[-300:]!r}"
