"""Settings: declared once, from the chart, the environment and the IstioControlPlane."""
