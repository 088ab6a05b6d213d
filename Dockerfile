# The server of `agegender serve` on ONNX Runtime alone, without TensorFlow.
#
#     docker build -t agegender .
#     docker run --rm --read-only --tmpfs /tmp -p 8000:8000 agegender
#     curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
#
# The released weights in it are for non-commercial research. Other models:
#     docker run --rm --read-only --tmpfs /tmp -p 8000:8000 -v $PWD/model.onnx:/model.onnx:ro \
#         agegender serve /model.onnx --host 0.0.0.0
FROM python:3.12-slim AS build
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY keras_agegender keras_agegender
RUN python -m venv /opt/agegender \
    && /opt/agegender/bin/pip install --no-cache-dir --no-compile .

FROM python:3.12-slim
COPY --from=build /opt/agegender /opt/agegender
ENV PATH=/opt/agegender/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --system --no-create-home agegender
USER agegender
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["agegender"]
CMD ["serve", "--host", "0.0.0.0"]
