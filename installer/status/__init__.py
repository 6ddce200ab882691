"""`install-cni status`: the status of the cluster.

`access` and `collect` read objects from the API server (edges), `summary` makes one value of them (pure), `text`, `data` and
`changes` write that value for people, programs and pipes (pure), `command` and `follow` wire them (edges).
`takeover` (pure) and `takeover_command` (edge) do the same for `install-cni takeover`.
"""
