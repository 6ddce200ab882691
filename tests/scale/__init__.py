"""What many node agents cost the API server: simulated ones, held to the requests of a real one."""
