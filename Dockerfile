# The base image decides the accelerator; the steps are the README's. Variants:
#   CPU    docker build -t gapbench .
#   CUDA   docker build -t gapbench --build-arg BASE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime .
#          docker run --gpus all gapbench
#          Needs the host's NVIDIA driver (580 or newer for CUDA 13.0) and its container toolkit; no CUDA
#          toolkit: the kernels are compiled by the NVRTC that comes with torch.
#   ROCm   docker build -t gapbench --build-arg BASE=rocm/pytorch:rocm7.1_ubuntu24.04_py3.12_pytorch_release_2.13.0 \
#            --build-arg VENV_OPTIONS=--system-site-packages .
#          docker run --device /dev/kfd --device /dev/dri --group-add video gapbench
# --system-site-packages keeps a torch that the base image brings, which any other vendor's stack needs too.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG VENV_OPTIONS=
WORKDIR /bench
COPY . .
RUN python3 -m venv ${VENV_OPTIONS} .venv && .venv/bin/pip install -c constraints.txt .
VOLUME /bench/results
ENTRYPOINT [".venv/bin/bench"]
CMD ["run", "--workload", "imaging-train"]
