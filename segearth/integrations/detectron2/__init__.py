"""The optional room of detectron2 users; importing any part of it needs detectron2."""

from segearth.errors import MissingPackageError
from segearth.utils.torchvision_mend import mend_torchvision

# The check stands at the door, so that the modules behind it import detectron2 like any other package.
mend_torchvision()  # detectron2 imports torchvision
try:
    from detectron2 import __version__  # noqa: F401  (a folder of that name, such as its clone, has none)
except ImportError as error:
    if error.name != "detectron2":
        raise
    raise MissingPackageError(
        "detectron2",
        "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git",
        "https://detectron2.readthedocs.io/en/latest/tutorials/install.html",
    ) from error
