"""Report of a study: one HTML file that opens offline, and every number of it as JSON."""
