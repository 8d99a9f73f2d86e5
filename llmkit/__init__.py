"""llmkit: raw rows in, a fine-tuned model behind an OpenAI-compatible endpoint out."""

__version__ = "0.1.0"
