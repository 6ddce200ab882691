"""The controller, `install-cni controller`: status, DaemonSet, finalizer, taints (D5, D7, D10).

Pure: `facts` (what is read from objects), `nodes` (how each node is), `status`, `rollout`, `removal`, `taints`, `psp`,
`events`. Edges: `api`, `lease`, `watches`, `loop`; `command` wires them.
"""
