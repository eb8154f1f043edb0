"""OME-Zarr pyramids on disk: NGFF 0.5, Zarr v3, sharded."""
