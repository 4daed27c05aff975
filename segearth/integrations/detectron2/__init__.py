"""Data sets, model and evaluator for use with detectron2; importing any module in here needs detectron2."""

from segearth.errors import MissingPackageError
from segearth.utils.torchvision_mend import mend_torchvision

# detectron2 is checked for here, so that the modules of this package can simply import it.
mend_torchvision()  # detectron2 imports torchvision, which may not fit the installed torch
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
