#!/bin/sh
# Starts a service of docker-compose.yml: sh compose-guard.sh COMMAND …
# Refuses where BIND publishes it beyond this machine with the secrets that stand in the file, which everybody knows, or
# without a password.
set -eu

refuse() {
    echo "BIND=$BIND publishes this service, and $1. Set it in .env, beside BIND." >&2
    exit 1
}

case ${BIND:-127.0.0.1} in
127.* | localhost | ::1 | "[::1]") ;;
*)
    known=0123456789abcdef0123456789abcdef01234567
    [ "${LABEL_STUDIO_USER_TOKEN:-}" != "$known" ] || refuse "LABEL_STUDIO_TOKEN is the one that everybody knows"
    [ "${LABEL_STUDIO_API_KEY:-}" != "$known" ] || refuse "LABEL_STUDIO_TOKEN is the one that everybody knows"
    [ "${LABEL_STUDIO_PASSWORD:-}" != label-timelines ] || refuse "LABEL_STUDIO_PASSWORD is the one that everybody knows"
    [ -z "${BASIC_AUTH_PASS+set}" ] || [ -n "$BASIC_AUTH_PASS" ] || refuse "BASIC_AUTH_USER and BASIC_AUTH_PASS are not set"
    ;;
esac
exec "$@"
