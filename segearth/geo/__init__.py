"""Georeferenced rasters: reading by windows, cutting into tiles, writing masks and polygons. No model code."""
