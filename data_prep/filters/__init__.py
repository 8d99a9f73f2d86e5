"""Filters: one a file. Each says of a row whether it stays, and if not, why."""
