"""What the bodies of requests may hold. Knows no HTTP and no vLLM."""
