"""prometheus_client, imported without Python's web servers, which it would load for one that is not used here.

Import its names from here.
"""

from installer.imports import hollow

with hollow("http.server", "wsgiref.simple_server"):
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        Metric,
        ProcessCollector,
        disable_created_metrics,
        generate_latest,
    )
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
    from prometheus_client.registry import Collector

__all__ = [
    "CONTENT_TYPE_LATEST",
    "Collector",
    "CollectorRegistry",
    "Counter",
    "CounterMetricFamily",
    "Gauge",
    "GaugeMetricFamily",
    "Histogram",
    "InfoMetricFamily",
    "Metric",
    "ProcessCollector",
    "disable_created_metrics",
    "generate_latest",
]
