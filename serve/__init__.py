"""The OpenAI-compatible HTTP server around vLLM's engine. Imports neither llmkit nor data_prep."""
