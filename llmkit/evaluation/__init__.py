"""What the tuned model does beside its base."""
