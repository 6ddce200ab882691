"""The API server: credentials, client, informers, Events, Lease, names."""
