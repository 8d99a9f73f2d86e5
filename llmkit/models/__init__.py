"""Models: found, loaded, given adapters, merged."""

import logging

# bitsandbytes warns at import, on every CPU, that an optional kernel package is not installed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
