"""The Toybox's trainings: CLIP, lenses, language model, painter."""
