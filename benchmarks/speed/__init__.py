"""Speed measurements: each module prints a table and compares within one run, on the machine it runs on."""
