"""One trainable torch module for each model, and the architectures they are built from."""
