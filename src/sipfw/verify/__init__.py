"""Is the live host what we think? Reads only; never writes to the kernel."""
