"""Rate limits on what repeats: repairs, reports, Events, log lines."""
