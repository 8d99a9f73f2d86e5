"""``llmkit generate``: a recipe and a teacher become rows, with a report of how."""
