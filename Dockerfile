# The images of this project; how to use them: docs/how-to/docker.md
#
#   docker build --target cpu -t segmamba-service:cpu .
#
#   requirements ── cpu-packages ── cpu ── training            on Debian, without a GPU
#   wheel ─────────────────────────┴───────┐
#                   gpu-packages ── gpu ── training-gpu        on NVIDIA's CUDA image
#
# Name a base with its digest to have the very same one again: PYTHON_IMAGE=…@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04


FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /requirements
COPY docker/requirements.py pyproject.toml constraints.txt ./
RUN python3 requirements.py pyproject.toml . \
    && sed '/^torch==/d' constraints.txt >without-torch.txt \
    && rm requirements.py pyproject.toml


# The project with its kernels: one wheel for every Python, made where there is a compiler.
FROM ${PYTHON_IMAGE} AS wheel
RUN apt-get update && apt-get install -y --no-install-recommends ccache g++ \
    && rm -rf /var/lib/apt/lists/*
COPY --from=requirements /requirements /requirements
RUN python3 -m venv /opt/build && /opt/build/bin/pip install -q --no-cache-dir \
    -c /requirements/constraints.txt -r /requirements/build.txt
ENV PATH=/opt/build/bin:$PATH CXX=g++ CMAKE_GENERATOR=Ninja CMAKE_CXX_COMPILER_LAUNCHER=ccache
WORKDIR /src
# Compiled once: the wheel, made anew with every change of the code, finds the objects in ccache.
COPY CMakeLists.txt ./
COPY model_core/ops/native model_core/ops/native
RUN cmake -S . -B /kernels --log-level=NOTICE && cmake --build /kernels && rm -rf /kernels model_core/ops/*.so
COPY LICENSE README.md pyproject.toml ./
COPY model_core model_core
COPY service service
COPY training training
COPY docker/finish.sh /wheels/
ARG SOURCE_DATE_EPOCH=0
# A wheel without kernels would install as well, only slower: it is refused.
RUN pip wheel -q --no-deps --no-build-isolation -w /wheels . \
    && test ! -e /wheels/*-none-any.whl \
    && sha256sum /wheels/* /requirements/* >/SHA256SUMS


FROM ${PYTHON_IMAGE} AS cpu-packages
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY --from=requirements /requirements /requirements
COPY docker/packages.sh docker/sbom.txt /build/
RUN /build/packages.sh ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
    -c /requirements/constraints.txt -r /requirements/service.txt


FROM ${PYTHON_IMAGE} AS cpu
RUN apt-get update && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/log/*.log /var/log/apt /var/cache/ldconfig/aux-cache \
    && groupadd -g 10001 segmamba \
    && useradd -u 10001 -g 10001 -M -d /tmp -s /usr/sbin/nologin segmamba \
    && install -d -o 10001 -g 10001 /data /blobs /models /cache /training /training/results
COPY --from=cpu-packages /opt/segmamba /opt/segmamba
COPY docker/entrypoint.sh docker/kernel.sh docker/health.py /usr/local/lib/segmamba/
# What is mounted below is none of a layer's own: these sums make the layer anew when it changes.
COPY --from=wheel /SHA256SUMS /usr/share/doc/segmamba/
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,from=cpu-packages,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/finish.sh --no-deps --no-index /wheels/*.whl
ENV PATH=/opt/segmamba/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp XDG_CACHE_HOME=/cache \
    SEGMAMBA_HOST=0.0.0.0 SEGMAMBA_PORT=8000 SEGMAMBA_DATA_DIR=/data SEGMAMBA_MODELS=/models
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/usr/local/lib/segmamba/health.py"]
ENTRYPOINT ["tini", "--", "/usr/local/lib/segmamba/entrypoint.sh"]
CMD ["serve"]


FROM cpu AS training
USER 0
COPY docker/train.sh /usr/local/lib/segmamba/
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,from=cpu-packages,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,from=wheel,source=/requirements,target=/requirements \
    /wheels/finish.sh -c /requirements/constraints.txt -r /requirements/train.txt
WORKDIR /training
USER 10001:10001
HEALTHCHECK NONE
CMD ["train", "--help"]


FROM ${CUDA_IMAGE} AS gpu-packages
ARG MAMBA_SSM=https://github.com/state-spaces/mamba/releases/download/v2.3.2.post1/mamba_ssm-2.3.2.post1%2Bcu12torch2.10cxx11abiTRUE-cp312-cp312-linux_x86_64.whl
ARG CAUSAL_CONV1D=https://github.com/Dao-AILab/causal-conv1d/releases/download/v1.6.2.post1/causal_conv1d-1.6.2.post1%2Bcu12torch2.10cxx11abiTRUE-cp312-cp312-linux_x86_64.whl
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY --from=requirements /requirements /requirements
COPY docker/packages.sh docker/sbom.txt docker/gpu.txt /build/
# The kernels without their dependencies, most of which belong to networks that are not used here. Newer
# releases leave the kernel of Mamba-1 out, unless they are told to keep it.
RUN /build/packages.sh -c /requirements/without-torch.txt -c /build/gpu.txt \
    -r /requirements/service.txt einops transformers \
    && MAMBA_KEEP_CUDA_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=FALSE \
    /opt/tools/bin/python -m pip --python /opt/segmamba/bin/python install -q \
    --no-cache-dir --no-deps --no-build-isolation "$CAUSAL_CONV1D" "$MAMBA_SSM"


FROM ${CUDA_IMAGE} AS gpu
RUN apt-get update && apt-get install -y --no-install-recommends python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/log/*.log /var/log/apt /var/cache/ldconfig/aux-cache \
    && groupadd -g 10001 segmamba \
    && useradd -u 10001 -g 10001 -M -d /tmp -s /usr/sbin/nologin segmamba \
    && install -d -o 10001 -g 10001 /data /blobs /models /cache /training /training/results
COPY --from=gpu-packages /opt/segmamba /opt/segmamba
COPY docker/entrypoint.sh docker/kernel.sh docker/health.py /usr/local/lib/segmamba/
# What is mounted below is none of a layer's own: these sums make the layer anew when it changes.
COPY --from=wheel /SHA256SUMS /usr/share/doc/segmamba/
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,from=gpu-packages,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    /wheels/finish.sh --no-deps --no-index /wheels/*.whl
ENV PATH=/opt/segmamba/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp XDG_CACHE_HOME=/cache TRITON_CACHE_DIR=/cache/triton \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    SEGMAMBA_KERNEL_CHECK=require \
    SEGMAMBA_HOST=0.0.0.0 SEGMAMBA_PORT=8000 SEGMAMBA_DATA_DIR=/data SEGMAMBA_MODELS=/models
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "/usr/local/lib/segmamba/health.py"]
ENTRYPOINT ["tini", "--", "/usr/local/lib/segmamba/entrypoint.sh"]
CMD ["serve"]


FROM gpu AS training-gpu
USER 0
COPY docker/train.sh /usr/local/lib/segmamba/
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,from=gpu-packages,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,from=gpu-packages,source=/build,target=/build \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,from=wheel,source=/requirements,target=/requirements \
    /wheels/finish.sh -c /requirements/without-torch.txt -c /build/gpu.txt \
    -r /requirements/train.txt
WORKDIR /training
USER 10001:10001
HEALTHCHECK NONE
CMD ["train", "--help"]
