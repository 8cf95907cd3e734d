"""Starting kernels: grids, and the launch table of each card."""
