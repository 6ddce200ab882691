"""`install-cni status`: the cluster at a glance.

`access` asks the API server (edge), `glance` makes one value of the objects that it has got (pure), `text`, `data` and
`changes` write that value for people, programs and pipes (pure), `command` and `watching` wire them (edges).
"""
