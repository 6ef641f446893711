# One image for each program and one for the appliance:
#
#   docker build --target processor -t tidemark/processor .
#   docker buildx build --platform linux/amd64,linux/arm64 --target appliance -t tidemark/tidemark .
#
# PACKAGES="-p common -p producer" compiles what one image needs and no more. BINARIES=prebuilt compiles nothing and takes the programs, and
# ca-certificates.crt, from the folder dist/ of the build context.
ARG BINARIES=compiled

FROM rust:1.95-bookworm AS compiled
# Those whose programs are wanted; common brings TLS and SASL for Kafka.
ARG PACKAGES="--workspace"
# Relocations take bits instead of words: a twentieth of a program. It takes glibc 2.36, which the base below has, and not every user.
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C link-arg=-Wl,-z,pack-relative-relocs"
WORKDIR /src
# The dependencies are a layer of their own, made from the manifests alone: they are compiled again when Cargo.lock changes, and not before.
COPY Cargo.toml Cargo.lock build.rs ./
COPY broker/Cargo.toml broker/
COPY common/Cargo.toml common/
COPY processor/Cargo.toml processor/
COPY producer/Cargo.toml producer/
COPY sink/Cargo.toml sink/
COPY sql/Cargo.toml sql/
RUN mkdir src && echo 'fn main() {}' >src/main.rs \
 && for house in broker common processor producer sink sql; do mkdir $house/src && touch $house/src/lib.rs; done \
 && for house in processor producer sink; do echo 'fn main() {}' >$house/src/main.rs; done \
 && cargo build --release --locked $PACKAGES --bins --features common/tls \
 && rm -rf src */src target/release/.fingerprint/broker-* target/release/.fingerprint/common-* target/release/.fingerprint/processor-* \
    target/release/.fingerprint/producer-* target/release/.fingerprint/sink-* target/release/.fingerprint/sql-* target/release/.fingerprint/tidemark-*
COPY . .
RUN cargo build --release --locked $PACKAGES --bins --features common/tls \
 && mkdir -p /dist && cp /etc/ssl/certs/ca-certificates.crt /dist/ \
 && for program in tidemark producer processor sink; do \
      [ ! -x target/release/$program ] || strip -o /dist/$program target/release/$program; \
    done

# An engine without BuildKit makes this stage even when nobody asks for it: with a file that is always there, an absent folder is no fault.
FROM scratch AS prebuilt
COPY Cargo.tom[l] dist* /dist/

FROM ${BINARIES} AS binaries

FROM debian:bookworm-slim AS base
RUN groupadd --gid 10001 tidemark && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/tidemark --shell /usr/sbin/nologin tidemark \
 && install -d -o tidemark -g tidemark -m 0750 /var/lib/tidemark
COPY --from=binaries /dist/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
WORKDIR /var/lib/tidemark
USER 10001:10001
# SIGTERM drains; engines wait 10 seconds by default.
STOPSIGNAL SIGTERM

FROM base AS producer
COPY --from=binaries /dist/producer /usr/local/bin/producer
ENV TIDEMARK_HTTP__LISTEN=0.0.0.0:9101
EXPOSE 9101
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["producer", "healthcheck"]
ENTRYPOINT ["producer"]

FROM base AS processor
COPY --from=binaries /dist/processor /usr/local/bin/processor
ENV TIDEMARK_HTTP__LISTEN=0.0.0.0:9102
EXPOSE 9102
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["processor", "healthcheck"]
ENTRYPOINT ["processor"]

FROM base AS sink
COPY --from=binaries /dist/sink /usr/local/bin/sink
ENV TIDEMARK_HTTP__LISTEN=0.0.0.0:9103 TIDEMARK_SINK__STATE_PATH=/var/lib/tidemark/sink TIDEMARK_SINK__SQLITE__PATH=/var/lib/tidemark/tidemark.sqlite
EXPOSE 9103
VOLUME /var/lib/tidemark
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["sink", "healthcheck"]
ENTRYPOINT ["sink"]

FROM base AS appliance
COPY --from=binaries /dist/tidemark /usr/local/bin/tidemark
USER root
# Folders for volumes whose owner is to be this user: secrets and certificates, one for each reader, and VictoriaMetrics' data.
RUN install -d -o tidemark -g tidemark -m 0750 /storage && for reader in admin sink grafana; do install -d -o tidemark -g tidemark -m 0750 /secrets/$reader; done \
 && for reader in ca kafka influxdb setup producer processor sink prometheus grafana mosquitto device; do \
      install -d -o tidemark -g tidemark -m 0750 /certificates/$reader; \
    done
USER 10001:10001
ENV TIDEMARK_HTTP__LISTEN=0.0.0.0:8080 TIDEMARK_APPLIANCE__DATA_DIR=/var/lib/tidemark
EXPOSE 8080
VOLUME /var/lib/tidemark
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["tidemark", "healthcheck"]
ENTRYPOINT ["tidemark"]
