# vidnoise in a container, without root and without a network of its own (for cameras, see compose.yaml):
#
#   docker build -t vidnoise .                              # for CPUs
#   docker build -t vidnoise:cuda --build-arg DEVICE=cuda . # for NVIDIA GPUs
#   docker run --rm --network none --user "$(id -u)" -v "$PWD:/work" vidnoise input.mp4 -o clean.mp4
#   docker run --rm --gpus all --user "$(id -u)" -v "$PWD:/work" vidnoise:cuda input.mp4 -o clean.mp4

FROM python:3.13-slim

# cpu, or cuda: the PyTorch that is installed.
ARG DEVICE=cpu

WORKDIR /src
COPY constraints.txt pyproject.toml hatch_build.py README.md LICENSE ./
COPY models models
COPY vidnoise vidnoise
RUN case "$DEVICE" in \
        cpu) index="--extra-index-url https://download.pytorch.org/whl/cpu" ;; \
        cuda) index="" ;; \
        *) echo "DEVICE is cpu or cuda, not $DEVICE"; exit 1 ;; \
    esac \
    # A compiler, for the kernels only.
    && apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && pip install --no-cache-dir -c constraints.txt $index . \
    && apt-get purge -y --auto-remove gcc libc6-dev && rm -rf /var/lib/apt/lists/* \
    # OpenCV without windows, as there is no libGL here.
    && pip uninstall -y opencv-python \
    && pip install --no-cache-dir --no-deps -c constraints.txt opencv-python-headless

# Measurements of backends are kept there; whoever runs the container may be any user.
ENV HOME=/tmp
USER 1000
WORKDIR /work
ENTRYPOINT ["vidnoise"]
CMD ["--help"]
