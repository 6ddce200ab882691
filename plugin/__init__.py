"""The redirect work at pod setup: the CNI protocol, the decision, the rules, the client and its server."""
