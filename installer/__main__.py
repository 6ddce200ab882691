"""`python -m installer` is `install-cni`."""

from installer.cli import main

main()
