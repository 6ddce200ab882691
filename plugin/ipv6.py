"""Where IPv6 is off in the current thread's netns, read from the kernel, so that no message guesses a cause."""

from __future__ import annotations

from pathlib import Path

CONF = Path("/proc/sys/net/ipv6/conf")  # of the reading thread's netns
AT_BOOT = Path("/sys/module/ipv6/parameters/disable")
FIRST = ("all", "default", "lo")
NAMED = 8  # interfaces at most


def off() -> str:
    """Name the sysctl or kernel parameter that keeps IPv6 off; empty if none is found."""
    try:
        names = {each.name for each in CONF.iterdir()}
    except FileNotFoundError:
        return absent()
    except OSError as error:
        return f"{CONF} cannot be read: {error.strerror}"
    ordered = (*FIRST, *sorted(names - {*FIRST}))
    found = [name for name in ordered if _read(CONF / name / "disable_ipv6") == "1"]
    if len(found) > NAMED:
        found[NAMED:] = [f"{len(found) - NAMED} more"]
    said = "is" if len(found) == 1 else "are each"
    return f"net.ipv6.conf.*.disable_ipv6 {said} 1 in its netns for {', '.join(found)}" if found else ""


def absent() -> str:
    """Explain why this node's kernel has no IPv6 at all; empty if it has."""
    if CONF.parent.exists():
        return ""
    if _read(AT_BOOT) == "1":
        return "this node's kernel runs with ipv6.disable=1"
    return f"this node's kernel has no IPv6: saw no {CONF.parent}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
