"""Measuring an OpenAI-compatible server from outside, as its clients feel it."""
