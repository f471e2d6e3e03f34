# The endpoint with models in it, so that an image's tag says what is served and a rollback brings the old models back:
#   docker build -f docs/deploy/models.Dockerfile -t registry.example/hybridge-digits:1.0 models/
ARG ENDPOINT=registry.example/hybridge:0.1.0
# hadolint ignore=DL3006
FROM ${ENDPOINT}
COPY . /models
