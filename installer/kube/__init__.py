"""The API server: client, informers, names, events, leases."""
