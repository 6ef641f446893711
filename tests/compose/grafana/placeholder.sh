#!/bin/sh
# Stands where Grafana's server would: answers its health check, when the container was given all that Grafana needs.
set -e
for file in /run/secrets/admin-password /run/secrets/influxdb-token /etc/grafana/dashboards/fleet.json /etc/grafana/provisioning/datasources; do
    [ -r "$file" ] || { echo "cannot read $file" >&2; exit 1; }
done
touch /var/lib/grafana/written
mkdir -p /tmp/www/api && echo ok >/tmp/www/api/health
exec busybox httpd -f -p 3000 -h /tmp/www
