"""Contamination: training rows that hold questions or answers of evaluation sets."""
