"""Writes the commands for an admin that grant what the API server refused. Pure."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.status.model import Unavailable

ROLE = "istio-cni-status"
VERBS = "list,watch"

_USER = re.compile(r'User "([^"]+)"')
_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")


def grant_commands(refused: Sequence[Unavailable]) -> str:
    """Write the commands that grant what was refused.

    At least one was, each with the API server's message, which names the user.
    """
    resources = ",".join(each.resource for each in refused)
    named = next(filter(None, (_USER.search(each.message) for each in refused)), None)
    account = _ACCOUNT.fullmatch(named[1]) if named else None
    if account:
        who = f"--serviceaccount={account[1]}:{account[2]}"
    else:
        who = f"--user={shlex.quote(named[1])}" if named else "--user=NAME"
    return (
        f"Ask an admin to run: kubectl create clusterrole {ROLE} --verb={VERBS} --resource={resources} && "
        f"kubectl create clusterrolebinding {ROLE} --clusterrole={ROLE} {who}"
    )
