# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package delos-deploy \
    && install -D target/release/delos-deploy /out/delos-deploy \
    && install -d /out/data

# libc and certificates, and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/delos-deploy /usr/local/bin/delos-deploy
COPY --from=build --chown=nonroot:nonroot /out/data /var/lib/delos-deploy
ENV DELOS_LISTEN_ADDR=0.0.0.0 \
    DELOS_SQLITE_PATH=/var/lib/delos-deploy/deploy.db
USER nonroot
WORKDIR /var/lib/delos-deploy
EXPOSE 9005
VOLUME /var/lib/delos-deploy
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["delos-deploy", "healthcheck"]
ENTRYPOINT ["delos-deploy"]
