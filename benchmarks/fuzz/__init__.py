"""Every reader against damaged files: whole ones of every format, mutated by a seed, read in processes that may die of them."""
