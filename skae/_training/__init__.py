"""The training of networks: data, the training loop, callbacks, and the state as arrays."""
