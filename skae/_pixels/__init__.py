"""Densities on the pixels of an image, estimated from the number of counts on each pixel."""
