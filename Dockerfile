# evocell with its image built in: docker build -t evocell . && docker run --rm evocell evocell demo
FROM python:3.11-slim-bookworm AS packages
COPY . /src
RUN python -m venv /opt/evocell \
    && /opt/evocell/bin/pip install --no-cache-dir -c /src/requirements.lock '/src[tables,plot]'

FROM python:3.11-slim-bookworm
COPY --from=packages /opt/evocell /opt/evocell
ENV PATH=/opt/evocell/bin:$PATH EVOCELL_CACHE_DIR=/home/evocell/.cache/evocell
RUN useradd --create-home evocell && mkdir /work && chown evocell /work
USER evocell
# Compiles the interpreter, once: one to two minutes and 2 GB of memory.
RUN evocell image build
WORKDIR /work

CMD ["evocell", "--help"]
