"""How the Toybox is measured: seen, scanned, ranged, touched, struck, watched by a brain; as arrays and files."""
