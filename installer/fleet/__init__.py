"""Nodes and agents as controller and `status` see them. Pure."""
