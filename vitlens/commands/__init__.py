"""Commands that stand on several rooms of the house: hosts, decoders and what ships with the benchmarks."""
