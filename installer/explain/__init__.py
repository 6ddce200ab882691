"""`install-cni explain`: how a pod's traffic is treated, and why."""
