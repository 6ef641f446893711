#!/usr/bin/env bash
# Apache Spark with Delta Lake (from Maven) reads a table of the data lake, for the tests.
#
#   lake_spark.sh resolve        fetches everything once and prints the folder that holds Delta Lake
#   lake_spark.sh read TABLE     prints what tests/lake.py prints; then compacts the table and prints it again: both lines must be the same
#
# Needs what tests/spark.sh needs. DELTA_VERSION and SPARK_LIB (where it is kept) may be set.
set -euo pipefail

version=${DELTA_VERSION:-4.4.0}
lib=${SPARK_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test}/delta-$version
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() { echo "lake_spark.sh: $*" >&2; exit 1; }

resolve() {
    [[ -f $lib/.complete ]] && return
    mkdir -p "$(dirname "$lib")"
    # Into a folder of its own first: half a folder must not look whole to a test that starts at the same time.
    local tmp; tmp=$(mktemp -d "$(dirname "$lib")/delta-XXXXXX")
    # Spark brings the rest.
    cat >"$tmp/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemark</groupId><artifactId>delta-lib</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>io.delta</groupId><artifactId>delta-spark_4.2_2.13</artifactId><version>$version</version>
    <exclusions><exclusion><groupId>org.apache.spark</groupId><artifactId>*</artifactId></exclusion></exclusions>
  </dependency></dependencies>
</project>
POM
    mvn -B -q -f "$tmp/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DincludeGroupIds=io.delta \
        -DoutputDirectory="$tmp/jars" >&2 || die "Maven cannot resolve Delta Lake $version"
    touch "$tmp/.complete"
    mv -T "$tmp" "$lib" 2>/dev/null || { rm -rf "$tmp"; [[ -f $lib/.complete ]] || die "cannot put Delta Lake into $lib"; }
}

read_table() {
    local spark; spark=$("$tests/spark.sh" resolve)
    local jars; jars=$(printf ',%s' "$lib"/jars/*.jar)
    export PYTHONPATH=$spark/python${PYTHONPATH:+:$PYTHONPATH} SPARK_HOME=$spark/python/pyspark PYSPARK_PYTHON=python3
    export SPARK_LOCAL_IP=127.0.0.1
    exec "$SPARK_HOME/bin/spark-submit" --master "local[2]" --driver-memory 1g --jars "${jars#,}" \
        --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2 --conf spark.driver.host=127.0.0.1 \
        --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \
        --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \
        --conf "spark.driver.extraJavaOptions=-XX:+UseSerialGC -XX:TieredStopAtLevel=1" "$tests/lake_spark.py" "$1"
}

case ${1:-} in
    resolve) resolve; echo "$lib" ;;
    read) [[ $# -eq 2 ]] || die "usage: lake_spark.sh read TABLE"; resolve; read_table "$2" ;;
    *) sed -n '2,7p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
