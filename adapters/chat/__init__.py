"""Multimodal chat models of transformers that take lenses: InstructBLIP, LLaVA, and LAVIS checkpoints."""
