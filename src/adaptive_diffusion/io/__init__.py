"""Files, images, figures and weights: read, checked, and written whole or not at all."""
