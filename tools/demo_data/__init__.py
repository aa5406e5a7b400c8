"""Makes the data of the demo and trains its network. Its results are in `dfn_ray/demo/data`."""
