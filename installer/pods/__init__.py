"""This node's pods: where they are known from, and the verdict on each."""
