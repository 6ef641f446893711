#!/bin/sh
# Stands where Grafana's server would: answers its health check, when the container was given all that Grafana needs.
set -e
for file in /run/secrets/admin-password /run/secrets/influxdb-token /etc/grafana/dashboards/fleet.json /etc/grafana/provisioning/datasources; do
    [ -r "$file" ] || { echo "cannot read $file" >&2; exit 1; }
done
touch /var/lib/grafana/written
# Over TLS it is openssl that listens: it answers what is asked with a page of its own.
if [ "$GF_SERVER_PROTOCOL" = https ]; then
    exec openssl s_server -quiet -accept 3000 -cert "$GF_SERVER_CERT_FILE" -key "$GF_SERVER_CERT_KEY" -www
fi
mkdir -p /tmp/www/api && echo ok >/tmp/www/api/health
exec busybox httpd -f -p 3000 -h /tmp/www
