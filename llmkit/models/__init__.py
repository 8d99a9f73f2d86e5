"""Models: found, loaded, given adapters, merged."""
