"""Georeferenced rasters: windows, tiles, masks and polygons on one grid, questions about them. No model code."""
