"""The SEED-2 tokenizer written anew, and SEED-LLaMA with any sensor."""
