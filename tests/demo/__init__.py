"""A tour: a pod whose traffic goes through Envoy, because our agent installed our plugin."""
