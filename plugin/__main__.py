"""`python -m plugin`: the reference for tests of the frozen executable."""

from plugin.client import run

run()
