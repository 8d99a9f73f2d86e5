"""Files, folders, globs and hub data sets -> raw records, each with the place it came from."""
