"""The project's own image and text encoder, its training, and the domain detector."""
