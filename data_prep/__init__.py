"""Rows in, a training-ready data set and its ledger out. No torch, no llmkit, no serve."""
