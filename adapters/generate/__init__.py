"""From any mixture of inputs to texts, pictures, sounds, videos, meshes: bridges, decoder cards, diffusers."""
