"""`install-cni manifest` renders an IstioControlPlane as the chart's objects, for people who do not use helm themselves.

The chart is the only source of templates, and the program helm renders them: `overlay` and `chartvalues` (pure) turn the
resource into chart values, `helm`, `kubectl` and `programs` run those programs, `command` wires them for the command line.
"""
