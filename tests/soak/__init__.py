"""`make soak`: one agent, pods that come and go, and whoever wishes it ill, for as long as it is asked for."""
