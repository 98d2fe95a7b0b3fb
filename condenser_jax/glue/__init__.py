"""The tasks of GLUE (Wang et al. 2019): what they are, how they are read and measured; no jax."""
