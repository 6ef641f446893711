#!/usr/bin/env bash
# Apache Spark (PySpark from PyPI, the Kafka connector from Maven), one process on this machine, for the tests.
#
#   spark.sh resolve        fetches everything once and prints the folder that holds it
#   spark.sh run ARGS...    deploy/spark/tidemark_spark.py ARGS... by spark-submit, in the foreground
#
# Needs Java 17 or later, Maven and Python 3.11 or later. SPARK_VERSION and SPARK_LIB (where it is kept) may be set.
set -euo pipefail

version=${SPARK_VERSION:-4.2.0}
lib=${SPARK_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test}/spark-$version
runner=$(cd "$(dirname "${BASH_SOURCE[0]}")/../deploy/spark" && pwd)/tidemark_spark.py

die() { echo "spark.sh: $*" >&2; exit 1; }

resolve() {
    [[ -f $lib/.complete ]] && return
    mkdir -p "$(dirname "$lib")"
    # Into a folder of its own first: two test programs may do this at the same time, and half a folder must not look whole.
    local tmp; tmp=$(mktemp -d "$(dirname "$lib")/spark-XXXXXX")
    python3 -m pip install -q --no-warn-script-location --target "$tmp/python" "pyspark==$version" >&2 ||
        die "pip cannot install pyspark $version"
    # What pyspark brings along already stays out.
    cat >"$tmp/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidemark</groupId><artifactId>spark-lib</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.spark</groupId><artifactId>spark-sql-kafka-0-10_2.13</artifactId><version>$version</version>
    <exclusions>
      <exclusion><groupId>org.scala-lang</groupId><artifactId>*</artifactId></exclusion>
      <exclusion><groupId>org.scala-lang.modules</groupId><artifactId>*</artifactId></exclusion>
      <exclusion><groupId>org.apache.hadoop</groupId><artifactId>*</artifactId></exclusion>
      <exclusion><groupId>org.apache.spark</groupId><artifactId>spark-tags_2.13</artifactId></exclusion>
    </exclusions>
  </dependency></dependencies>
</project>
POM
    mvn -B -q -f "$tmp/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$tmp/jars" >&2 ||
        die "Maven cannot resolve the Kafka connector of Spark $version"
    touch "$tmp/.complete"
    mv -T "$tmp" "$lib" 2>/dev/null || { rm -rf "$tmp"; [[ -f $lib/.complete ]] || die "cannot put Spark into $lib"; }
}

run() {
    local jars; jars=$(printf ',%s' "$lib"/jars/*.jar)
    export PYTHONPATH=$lib/python${PYTHONPATH:+:$PYTHONPATH} SPARK_HOME=$lib/python/pyspark PYSPARK_PYTHON=python3
    export SPARK_LOCAL_IP=127.0.0.1
    # Tests are short: the quick compiler, a small heap, few partitions, no page. Everything else is what a user's Spark does.
    exec "$SPARK_HOME/bin/spark-submit" --master "local[2]" --driver-memory 1g --jars "${jars#,}" \
        --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2 --conf spark.driver.host=127.0.0.1 \
        --conf "spark.driver.extraJavaOptions=-XX:+UseSerialGC -XX:TieredStopAtLevel=1" \
        "$runner" "$@"
}

case ${1:-} in
    resolve) resolve; echo "$lib" ;;
    run) shift; resolve; run "$@" ;;
    *) sed -n '2,7p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
