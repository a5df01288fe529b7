"""The HTTP routes, a file a noun. Each file has `router(service)`."""
