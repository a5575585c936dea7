"""How networks are trained: data, the loop, callbacks, state as arrays."""
