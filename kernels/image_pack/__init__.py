"""image_pack: uint8 images of height, width, channels -> one normalised batch of n, channels, height, width."""
