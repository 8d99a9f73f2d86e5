"""What Prometheus reads: the gateway's own figures, beside vLLM's."""
