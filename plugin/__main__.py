"""`python -m plugin`: the reference that the frozen executable is held against."""

from plugin.client import run

run()
