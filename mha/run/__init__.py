"""Runs: experiments built from a config, and the files in the directory of a run."""
