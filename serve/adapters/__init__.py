"""Versioned LoRA adapters: checked, loaded, named, and taken out of a running engine."""
