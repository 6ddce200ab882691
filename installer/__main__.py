"""`python -m installer` is `install-cni`."""

from installer.main import main

main()
