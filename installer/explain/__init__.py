"""`install-cni explain`: what becomes of a pod's traffic, and why."""
