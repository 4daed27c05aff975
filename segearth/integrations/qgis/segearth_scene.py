"""A tool of QGIS's Processing toolbox that asks a raster layer a question.

QGIS's own Python has no torch. So this starts the command ``segearth scene`` of the environment in which the library is
installed, and hands on what that writes. The long names of methods are QGIS's. How to add it to QGIS: docs/geo.md.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsProcessingParameterVectorLayer,
    QgsProcessingUtils,
    QgsVectorFileWriter,
)

MODES = ["auto", "tile", "whole"]
PERCENT = re.compile(r"(\d+)%\|")  # of the progress bar
# QGIS may point these at its own Python, PROJ and GDAL, in which the command's Python would find nothing it can use.
OF_QGIS = ("PYTHONHOME", "PYTHONPATH", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH", "OGR_DRIVER_PATH")


class SegEarthScene(QgsProcessingAlgorithm):
    """Segments what a question asks for, and gives mask and polygons on the layer's own grid."""

    def createInstance(self) -> SegEarthScene:
        """Makes another one, as QGIS asks for each run."""
        return SegEarthScene()

    def name(self) -> str:
        """How commands call it: ``script:segearth_scene``."""
        return "segearth_scene"

    def displayName(self) -> str:
        """How the toolbox calls it."""
        return "Ask a raster a question (segearth)"

    def shortHelpString(self) -> str:
        """What stands beside the form."""
        return (
            "Finds what a question asks for in a raster layer of any size, such as 'the buildings' or 'the largest "
            "building', and gives a mask on the layer's own grid and polygons with area and score. Needs the Python "
            "package segearth with its extra geo; where it is installed in an environment of its own, give the path of "
            "its command, such as /home/me/venv/bin/segearth."
        )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """States the form's fields."""
        add = self.addParameter
        add(QgsProcessingParameterRasterLayer("INPUT", "Raster layer"))
        add(QgsProcessingParameterString("QUESTION", "Question", "the buildings"))
        add(
            QgsProcessingParameterVectorLayer(
                "AOI", "Area of interest", [QgsProcessing.TypeVectorPolygon], optional=True
            )
        )
        add(QgsProcessingParameterVectorDestination("POLYGONS", "Polygons", QgsProcessing.TypeVectorPolygon))
        add(QgsProcessingParameterRasterDestination("MASK", "Mask"))
        advanced = [
            QgsProcessingParameterString("MODEL", "Model (empty: the default)", "", optional=True),
            QgsProcessingParameterEnum("MODE", "Who answers", MODES, defaultValue=0),
            QgsProcessingParameterString("COMMAND", "Command", "segearth"),
        ]
        for parameter in advanced:
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
            add(parameter)

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, str]:
        """Runs the command and shows its progress; a cancelled run goes on where it stopped if it is started again."""
        mask = self.parameterAsOutputLayer(parameters, "MASK", context)
        polygons = self.parameterAsOutputLayer(parameters, "POLYGONS", context)
        if polygons.startswith(("ogr:", "postgres:")):
            raise QgsProcessingException("polygons need a file of their own: choose 'Save to File', not a table")
        command = [
            self.parameterAsString(parameters, "COMMAND", context),
            "scene",
            self.parameterAsRasterLayer(parameters, "INPUT", context).source(),
            self.parameterAsString(parameters, "QUESTION", context),
            mask,
            *("--vector", polygons),
            *("--mode", MODES[self.parameterAsEnum(parameters, "MODE", context)]),
        ]
        if model := self.parameterAsString(parameters, "MODEL", context):
            command += ["--model", model]
        if area := self.parameterAsVectorLayer(parameters, "AOI", context):
            command += ["--aoi", _as_file(area, context)]
        said = _run(command, feedback)
        feedback.pushInfo("\n".join(said))
        return {"MASK": mask, "POLYGONS": polygons}


def _as_file(layer: Any, context: Any) -> str:
    """Writes a layer's features to a file: it may be one of several in its source, filtered, or in QGIS alone."""
    path = QgsProcessingUtils.generateTempFilename("area.gpkg")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    error, message, *_ = QgsVectorFileWriter.writeAsVectorFormatV3(layer, path, context.transformContext(), options)
    if error != QgsVectorFileWriter.NoError:
        raise QgsProcessingException(f"the area of interest cannot be written: {message}")
    return path


def _run(command: list[str], feedback: Any) -> list[str]:
    """Starts a command, hands its progress on, and returns the lines it printed."""
    own = {name: value for name, value in os.environ.items() if name not in OF_QGIS}
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
            env=own, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows would open a console
        )  # fmt: skip
    except OSError as error:
        raise QgsProcessingException(
            f"{command[0]} does not start ({error}); install segearth, or give the path of its command"
        ) from error
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:  # in text mode the bar's carriage returns end lines too
        if feedback.isCanceled():
            process.terminate()
            break
        if percent := PERCENT.search(line):
            feedback.setProgress(int(percent[1]))
        elif line.strip():
            said.append(line.strip())
    if process.wait() and not feedback.isCanceled():
        raise QgsProcessingException("\n".join(said[-5:]) or f"{command[0]} ended with code {process.returncode}")
    return said
