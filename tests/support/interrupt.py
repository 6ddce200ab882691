"""A command that SIGINT ends, whoever starts it.

A shell that starts a command in the background without job control has it ignore SIGINT, and each process hands that down; a
program that finds the signal ignored leaves it so, as is the custom.
"""

from __future__ import annotations

INTERRUPTIBLE = ("/usr/bin/env", "--default-signal=INT")  # it becomes the command that follows, with the same pid
