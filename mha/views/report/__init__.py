"""What finished runs say: tables, curves and one HTML page, made from the files of their workdirs alone."""
