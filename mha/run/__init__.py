"""A run: the parts of its config put together, and the files of its workdir."""
