"""The plugin and the agent beside Istio's own, in turns, in one run, at one API server."""
