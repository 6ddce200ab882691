"""This node's pods: their source, and the verdict on each."""
