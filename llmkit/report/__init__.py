"""The run's report: one self-contained HTML file."""
