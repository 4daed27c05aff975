from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "segearth/__init__.py").read_text(), re.M)[1]

# Every lower bound is the oldest that passes the tests: `python tools/compatibility.py oldest` installs just those.
REQUIRES = [
    "torch>=2.6",
    "transformers>=5.1,<6",  # 5.0 builds no Phi whose config.json leaves pad_token_id out
    "timm>=1.0.15",
    "einops>=0.8",
    "safetensors>=0.5",
    "huggingface_hub>=1.3,<3",
    "filelock>=3.10",
    "numpy>=1.26",
    "pillow>=11.3",  # reads AVIF, and tells 16-bit PNGs from 32-bit ones
    "opencv-python-headless>=4.9.0.80",
    "pycocotools>=2.0.8",
    "fvcore>=0.1.5.post20221221",
    "omegaconf>=2.3",
    "typer>=0.22",  # below, huggingface_hub's typer-slim puts other versions of the same files in the same folder
    "tqdm>=4.66",
]
EXTRAS = {
    # deepspeed: 0.17.0 cannot be told to skip steps whose gradients are infinite; peft: below, it imports what
    # transformers 5 no longer has.
    "train": ["deepspeed>=0.17.1", "peft>=0.18", "tensorboard>=2.16.2"],
    "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.7"],  # below, torch 2.6 writes no graph
    "quant": ["torchao>=0.18,<0.19"],  # its 4-bit layers for CPUs are a prototype, whose name may change
    # shapely: 2.1.0 ends the process while it makes polygons; fastapi, datasets: as gradio and trl ask for.
    "geo": ["rasterio>=1.4", "shapely>=2.1.1", "geopandas>=1.0.1", "pyogrio>=0.10"],
    "web": ["gradio>=6,<7", "fastapi>=0.115.2", "uvicorn>=0.30", "python-multipart>=0.0.18"],
    "rl": ["trl>=1.14,<1.17", "datasets>=4.7,<6", "peft>=0.18"],  # trl changes monthly
    "archive": ["ray[data]>=2.40"],
    "dev": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.12",
        "mypy>=1.13",
        "setuptools>=70.1",  # a test builds the wheel, without a network
        "matplotlib>=3.9",  # a test runs the notebook
    ],
    "mutation": ["mutmut>=3.8,<4"],  # needs pytest and hypothesis of dev
}

setup(
    name="segearth",
    version=VERSION,
    description="Ask an overhead image a question and get a mask: a library in the style of SegEarth-R1",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["segearth", "segearth.*"]), "segearth.configs"],
    package_dir={"segearth.configs": "configs"},  # experiments by name, also without a checkout
    package_data={
        "segearth": ["**/*.json", "**/*.yaml", "**/*.jpg", "**/*.jsonl", "**/*.md", "**/*.txt", "**/*.safetensors"],
        "segearth.configs": ["**/*.json", "**/*.yaml", "**/*.py"],  # of its own: the line above looks below segearth/
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["segearth=segearth.cli:app"]},
)
