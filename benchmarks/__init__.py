"""Zero-shot suites, datasets, and speed measurements."""
