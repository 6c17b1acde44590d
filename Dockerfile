# A node in a container: one static binary and nothing else. Say which stage: without `--target`, and in the classic
# builder on the way to any later stage, the last one is built, which asks for more than the first.
#
#   rustup target add x86_64-unknown-linux-musl
#   cargo build --release --locked --target x86_64-unknown-linux-musl -p osiris-cli
#   mkdir -p target/image/data
#   cp target/x86_64-unknown-linux-musl/release/osiris target/image/
#   docker build --target node -t osiris -f Dockerfile target/image
#
# A node that makes machines, with Terraform's static binary (or OpenTofu's, under the same name), the modules, and the
# authorities by which Terraform knows whom it downloads a provider from (package ca-certificates):
#
#   cp "$(command -v terraform)" target/image/terraform
#   cp -r terraform/machines target/image/
#   cp /etc/ssl/certs/ca-certificates.crt target/image/
#   docker build --target spawner -t osiris-spawner -f Dockerfile target/image
#
# docs/containers.md says how both are run.

FROM scratch AS node
COPY osiris /osiris
# The volume begins with the owner of this folder.
COPY --chown=65532:65532 data /data
ENV OSIRIS_DATA=/data/node
USER 65532:65532
VOLUME /data
EXPOSE 7421/udp
HEALTHCHECK --interval=10s --timeout=5s --retries=3 CMD ["/osiris", "status", "--ready"]
# SIGTERM lets running calls end.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/osiris"]
CMD ["up"]

# Terraform writes below TMPDIR and HOME, and the volume is all that can be written to.
FROM node AS spawner
COPY terraform /bin/terraform
COPY machines /machines
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV PATH=/bin HOME=/data TMPDIR=/data
