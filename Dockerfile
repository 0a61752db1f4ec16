# docker build -t s4d . && docker run -p 8888:8888 s4d    (JupyterLab; append `make reproduce` for all figures)
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
ENV VENV=/opt/s4d
WORKDIR /s4d
COPY . .
RUN make venv
EXPOSE 8888
CMD ["make", "lab", "ARGS=--ip=0.0.0.0 --no-browser --allow-root"]
