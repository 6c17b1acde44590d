# A node in a container: one static binary and nothing else. `docker build --target spawner` adds Terraform, for a node
# that makes machines.
#
#   rustup target add x86_64-unknown-linux-musl
#   cargo build --release --locked --target x86_64-unknown-linux-musl -p osiris-cli
#   mkdir -p target/image/data
#   cp target/x86_64-unknown-linux-musl/release/osiris target/image/
#   docker build -t osiris -f Dockerfile target/image

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

# Terraform's binary is taken from the folder, like the node's own.
FROM node AS spawner
COPY terraform /bin/terraform
ENV PATH=/bin

FROM node
