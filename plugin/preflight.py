"""Can this node redirect pods at all? Tried for real, in a network namespace made for it (F16)."""

from __future__ import annotations

from plugin import netns
from plugin.apply import ApplyError, apply
from plugin.redirect import Family, Redirect


def preflight() -> str | None:
    """Redirect an empty netns, with all defaults, v4 and v6. It warms libnftables for the first pod, too.

    Returns:
        Why this node cannot redirect a pod, None if it can.
    """
    try:
        with netns.scratch() as fd:
            apply(fd, Redirect(families=(Family.V4, Family.V6)))()
    except (ApplyError, OSError) as error:
        return f"this node cannot redirect pods by nftables: {error}"
    return None
