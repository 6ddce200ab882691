"""`install-cni manifest`: an IstioControlPlane in, the chart's objects out, for people without helm's workflow.

The chart is the one source of templates, and helm, as a program, what renders them: `overlay` and `chartvalues` (pure) make
chart values of the resource, `programs`, `helm` and `kubectl` run those two, `command` wires them for the command line.
"""
