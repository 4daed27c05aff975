"""Georeferenced rasters: reading them by windows, cutting them into tiles, writing masks and polygons. No model code."""
