"""The installer half of the node agent, on real directories."""
