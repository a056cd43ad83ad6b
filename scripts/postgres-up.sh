#!/bin/sh
# postgres-up.sh - a plain PostgreSQL cluster for development and tests, from the
# server programs that are on this machine (Debian's postgresql-NN or any other on
# PATH). Loopback only, own port, own directory, no systemd, no change to clusters
# that exist already. Idempotent. Run by root it starts the server under an
# unprivileged uid, because PostgreSQL refuses root; run by anyone else, as they are.
# Prints the DSN as its only line on stdout.
#   postgres-up.sh [up | down [--wipe] | dsn]
#   PG_HOME  where the cluster lies (default /var/cache/muster/postgres as root,
#            else ${TMPDIR:-/tmp}/muster-postgres-UID)
#   PG_PORT  loopback port           (default 54316)
#   PG_FAST  1: fsync off, for tests (default 0)
set -eu
PG_PORT=${PG_PORT:-54316}
ME=$(id -u)
# initdb looks its own user up, so the owner must be one that the system knows.
OWNER=$(id -un postgres 2>/dev/null || echo nobody)
if [ "$ME" = 0 ]; then DEFAULT_HOME=/var/cache/muster/postgres; else DEFAULT_HOME=${TMPDIR:-/tmp}/muster-postgres-$ME; fi
PG_HOME=${PG_HOME:-$DEFAULT_HOME}
DB=$PG_HOME/db
LOG=$PG_HOME/log
DSN="postgres://postgres@127.0.0.1:$PG_PORT/postgres?sslmode=disable"

fail() { echo "postgres-up.sh: $*" >&2; exit 1; }

# bin_dir prints the folder of the newest server on this machine.
bin_dir() {
  if command -v initdb >/dev/null 2>&1 && command -v pg_ctl >/dev/null 2>&1; then
    dirname "$(command -v pg_ctl)"
    return
  fi
  for d in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -rV); do
    if [ -x "$d/initdb" ] && [ -x "$d/pg_ctl" ]; then echo "$d"; return; fi
  done
}

# as_owner runs a server program as the cluster's owner, with a clean environment.
as_owner() {
  set -- env -i PATH="$BIN:/usr/bin:/bin" LANG=C.UTF-8 PGTZ=UTC HOME="$PG_HOME" "$@"
  if [ "$ME" = 0 ]; then set -- setpriv --reuid "$OWNER" --regid "$(id -g "$OWNER")" --clear-groups "$@"; fi
  (cd "$PG_HOME" && exec "$@")
}
running() { [ -e "$DB/.ready" ] && as_owner pg_ctl -D "$DB" status >/dev/null 2>&1; }

case "${1:-up}" in
dsn) echo "$DSN"; exit 0 ;;
up | down) ;;
*) echo "usage: $0 [up | down [--wipe] | dsn]" >&2; exit 2 ;;
esac
BIN=$(bin_dir)
[ -n "$BIN" ] || fail "no PostgreSQL server found on PATH or under /usr/lib/postgresql (Debian: apt-get install postgresql)"
mkdir -p "$PG_HOME"
if [ "$ME" = 0 ]; then chown "$OWNER" "$PG_HOME"; fi
exec 9>"$PG_HOME/.lock"; flock 9 # two jobs on one machine take turns

if [ "${1:-up}" = down ]; then
  if running; then as_owner pg_ctl -D "$DB" -m fast -w stop >/dev/null 9>&-; fi
  if [ "${2:-}" = --wipe ]; then rm -rf -- "$DB" "$LOG"; fi
  exit 0
fi

# 1. Cluster.
if [ ! -e "$DB/.ready" ]; then
  rm -rf -- "$DB"
  as_owner initdb -D "$DB" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
  cat >>"$DB/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
timezone = 'UTC'
jit = off
CONF
  : >"$DB/.ready"
fi

# 2. Server. (9>&- : the daemon must not hold the lock.)
if ! running; then
  OPTS="-p $PG_PORT"
  if [ "${PG_FAST:-0}" = 1 ]; then OPTS="$OPTS -c fsync=off -c synchronous_commit=off -c full_page_writes=off"; fi
  as_owner pg_ctl -D "$DB" -l "$LOG" -w -t 60 -o "$OPTS" start >/dev/null 9>&- ||
    { tail -n 20 "$LOG" >&2; exit 1; }
fi
echo "$DSN"
