# segearth with all that maps and the web page need, on the CPU: docker build -t segearth .
#   docker run --rm -v "$PWD:/data" segearth scene /data/in.tif "the buildings" /data/out.tif --vector /data/out.gpkg
#   docker run --rm -p 8000:8000 segearth serve --host 0.0.0.0
# For a GPU build with --build-arg INDEX=https://download.pytorch.org/whl/cu128 and run with --gpus all.
FROM python:3.12-slim
ARG INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/segearth
# rasterio's wheels need the XML parser of the system, which slim images lack.
RUN apt-get update && apt-get install -y --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/*
COPY constraints.txt setup.py pyproject.toml README.md LICENSE ./
# torch first and alone: later packages then keep this build. As it changes least, it makes a layer that stays.
RUN pip install --no-cache-dir --index-url "$INDEX" $(grep -E '^(torch|torchvision)==' constraints.txt)
COPY segearth segearth
COPY configs configs
RUN pip install --no-cache-dir -c constraints.txt '.[geo,web,archive]'
# A library that this image lacks would show when the first user asks; here it ends the build.
RUN python -c "import cv2, geopandas, gradio, pyogrio, rasterio, ray, segearth"
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["segearth"]
CMD ["--help"]
