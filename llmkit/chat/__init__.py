"""`llmkit chat`: talking to a served model from a terminal, or asking it once from a script."""
