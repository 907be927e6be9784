"""How the Toybox is measured: seen, scanned, ranged, touched, struck, watched by a brain, warmed, set down; arrays and files."""
