"""A tool for QGIS's Processing toolbox. ``segearth_scene.py`` is copied into QGIS, and its Python runs it."""
