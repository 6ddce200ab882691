"""How hypothesis works here: no time limits, as the machine may be busy, and nothing left in the tree."""

from hypothesis import HealthCheck, settings

settings.register_profile("conflist", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("conflist")
