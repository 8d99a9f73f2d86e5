"""Files and offline batches: requests that wait for everyone else, and outlive the server."""
