"""Training: our batches and our loss under the transformers Trainer."""
