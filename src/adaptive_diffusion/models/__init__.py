"""The networks that images are drawn with: the own U-Net, and those of diffusers."""
