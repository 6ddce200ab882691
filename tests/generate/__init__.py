"""Makes what is declared in installer/config into the files of the chart and the documentation: `make generate`."""
