"""Reports of finished runs: tables, curves and one HTML page, made only from the files of the runs."""
