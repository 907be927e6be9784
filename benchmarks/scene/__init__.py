"""Scene search, measured: a room of Toybox objects, and what every sense finds in it."""
