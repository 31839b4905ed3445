# The programs are built beforehand (`make image`), so that no base image and no registry is needed. They are static and
# carry the time zone database; the CA certificates are those of the machine that built the image.
FROM scratch
COPY bin/image/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY bin/image/manager bin/image/usaged bin/image/usage-batch bin/image/usage-run /
USER 65532:65532
ENTRYPOINT ["/manager"]
