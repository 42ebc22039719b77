"""Machine: devices, processes, and the cache of compiled programs and prepared data."""
