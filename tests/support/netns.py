"""A network namespace with a name in the file system, for as long as a test needs it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Netns:
    """A network namespace kept alive by a bind mount on `path`, as container runtimes do it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rules(self) -> str:
        """List its rules, as nft writes them."""
        command = ["/usr/bin/nsenter", f"--net={self.path}", "/usr/sbin/nft", "list", "ruleset"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def __enter__(self) -> Self:
        self.path.touch()
        subprocess.run(["/usr/bin/unshare", f"--net={self.path}", "/bin/true"], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Lazily, as runtimes do it: whoever was asked about it may have it open for a moment yet.
        subprocess.run(["/bin/umount", "--lazy", str(self.path)], check=True)
        self.path.unlink()
