"""What stands between the network and vLLM's own app, in pure ASGI so nothing is buffered."""
