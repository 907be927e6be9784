"""Our models in the field's standard tools: sentence-transformers and MTEB."""
