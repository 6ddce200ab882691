"""Programs that the tests build from published Go modules: Kubernetes, Istio and what stands beside them."""
