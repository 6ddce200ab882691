"""Files on the node."""
