"""What the plugin and the agent cost, beside what they could cost at the least."""
