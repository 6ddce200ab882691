"""A real Istio on two nodes, with our agent on each."""
