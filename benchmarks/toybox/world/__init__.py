"""What there is in the Toybox: objects, shapes, materials, words, the stage."""
