#!/bin/bash
# Initialise the database at the first start, as the image that this one stands in for does.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
sockets=/var/run/postgresql
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "${POSTGRES_PASSWORD:-}" ] || { echo "POSTGRES_PASSWORD is empty" >&2; exit 1; }
    initdb -U "$POSTGRES_USER" --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256 \
        --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -w -o "-c listen_addresses='' -k $sockets" start >/dev/null
    createdb -h "$sockets" -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -m fast -w stop >/dev/null
fi
exec postgres -c listen_addresses='*' -k "$sockets"
