# The programs are built beforehand (`make image`), so that no base image and no registry is needed. They are static and
# carry the time zone database; the CA certificates are those of the machine that built the image.
ARG BASE=scratch
FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="usage-operator" \
      org.opencontainers.image.description="Usage plans, quotas and metering of transcriptions on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY . /
USER 65532:65532
ENTRYPOINT ["/manager"]
