# Stands in for postgres:17-bookworm where no registry is reached: Debian's PostgreSQL, which obeys the
# variables, the user and the places that docker-compose.yml relies on.
FROM debian:bookworm-slim
# A certificate of its own, which Debian's package wants to make, needs nobody here; where certificates
# are mounted read-only it cannot be made, and the server works all the same.
RUN groupadd -r -g 999 postgres && useradd -r -u 999 -g postgres -d /var/lib/postgresql postgres \
    && apt-get update \
    && { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql \
        || test -x /usr/lib/postgresql/15/bin/postgres; } \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
COPY --chmod=755 postgres.sh /usr/local/bin/postgres.sh
ENV PGDATA=/var/lib/postgresql/data
USER postgres
ENTRYPOINT ["/usr/local/bin/postgres.sh"]
