"""Rate limits on repeated actions: repairs, reports, Events, log lines."""
