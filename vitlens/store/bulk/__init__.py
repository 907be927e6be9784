"""Lists of any size into a folder of parts: cut into pieces, made by any number of processes, each once and whole."""
