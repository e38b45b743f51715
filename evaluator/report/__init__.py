"""The report: everything that a workspace holds about a model, as one HTML file that opens offline."""
