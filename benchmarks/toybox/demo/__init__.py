"""What the Toybox's models make of held-out objects: measurements, tables, the demo's page."""
