"""The controller, `install-cni controller`: status, DaemonSet, finalizer, taints (D5, D7, D10).

Pure: `plan`, `status`, `events`, `taints`, `finalizer`, `node_lifecycle`, `pod_template`, `field_ownership` and
`stalled_rollout`. Edges: `client`, `watches`, `rollout`, `role_binding`, `reconciler`; `main` wires them.
"""
