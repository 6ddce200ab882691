"""How the agent and the controller speak with the API server."""
