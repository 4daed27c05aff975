"""Georeferenced rasters: windows, tiles, masks and polygons on the same grid, and questions about them. No model code."""
