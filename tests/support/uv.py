"""Runs uv as pip would be run on this machine: `python -m tests.support.uv pip install …`, with the standard library alone.

uv installs in a tenth of pip's time, but does not read pip's settings: a mirror, a proxy or an authority of the network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTING = re.compile(r"^(global|install|:env:)\.(?:default-)?([a-z-]+)=(.*)$", re.MULTILINE)
_PRECEDENCE = ("global", "install", ":env:")
_NAMES = {  # uv's variables for settings of pip's
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_DEFAULT_INDEX",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "trusted-host": "UV_INSECURE_HOST",
}
# As pip does: the authorities that the machine trusts, any index that has the version asked for, the Python that is here.
_LIKE_PIP = {"UV_SYSTEM_CERTS": "1", "UV_INDEX_STRATEGY": "unsafe-best-match", "UV_PYTHON_DOWNLOADS": "never"}


def pip_settings() -> dict[str, str]:
    """List pip's settings on this machine, from its files and its environment variables; spaces separate several values."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    lines = sorted(_SETTING.findall(told.stdout), key=lambda line: _PRECEDENCE.index(line[0]))
    found = {key: " ".join(literal_eval(value).split()) for _, key, value in lines}
    if authorities := os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE"):
        found.setdefault("cert", authorities)
    return found


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Write pip's settings as the environment variables of uv.

    Args:
        settings: of pip. A folder in `find-links` that is not there is left out, as pip does.
    """
    found = {name: settings[key] for key, name in _NAMES.items() if key in settings}
    places = settings.get("find-links", "").split()
    found["UV_FIND_LINKS"] = ",".join(each for each in places if ":" in each or Path(each).exists())
    return _LIKE_PIP | {name: value for name, value in found.items() if value}


def main() -> int:
    """Run uv, and return its exit code."""
    settings = pip_settings()
    offline = ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    command = [str(Path(sys.executable).with_name("uv")), *sys.argv[1:], *offline]
    told = environment(settings) | {"UV_PYTHON": sys.executable}
    return subprocess.run(command, env=os.environ | told, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
