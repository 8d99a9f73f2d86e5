"""Rows in, a training-ready data set and its ledger out. No torch; imports neither llmkit nor serve."""
