"""kopf, imported without what it would load for features that are not used here. Import kopf from here.

kopf imports `kubernetes` or pykube, if installed, to log in with them. The node agent logs in with `Login`, and 19 MB of unused
modules would be a third of its memory. For webhooks and a health endpoint of its own it imports aiohttp's server, of 2 MB.
"""

from __future__ import annotations

import logging

import installer.kube.aiohttp  # noqa: F401 - before kopf imports aiohttp otherwise
from installer.imports import absent, hollow

with absent("kubernetes", "kubernetes_asyncio", "pykube"), hollow("aiohttp.web"):
    import kopf

for _name in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they log a line for each object

__all__ = ["kopf"]
