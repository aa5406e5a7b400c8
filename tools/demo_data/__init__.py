"""Creates the demo's data and trains its network. The results are in `dfn_ray/demo/data`."""
