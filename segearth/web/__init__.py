"""Asking through a browser: an HTTP service and a web page, over any :class:`~segearth.segmenter.Segmenter`."""
