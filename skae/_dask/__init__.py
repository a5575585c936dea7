"""Collections of Dask: fits by sums over blocks, and methods of fitted models on each block."""
