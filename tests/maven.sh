# Sourced by the scripts that run a Java program from its Maven artifacts.

# fetch_jars FOLDER LEVEL GROUP:ARTIFACT:VERSION...: the artifacts and what they need, once, and a configuration of log4j of that level.
fetch_jars() {
    local folder=$1 level=$2 coordinate group artifact number
    [[ -f $folder/.complete ]] && return
    local tmp; tmp=$(mktemp -d)
    {
        echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        echo '<groupId>tidemark</groupId><artifactId>lib</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
        for coordinate in "${@:3}"; do
            IFS=: read -r group artifact number <<<"$coordinate"
            echo "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$number</version></dependency>"
        done
        echo '</dependencies></project>'
    } >"$tmp/pom.xml"
    # Into a folder of its own first: two test programs may do this at the same time, and half a folder must not look whole.
    mvn -B -q -f "$tmp/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$tmp/lib" >&2 ||
        die "Maven cannot resolve ${*:3}"
    cat >"$tmp/lib/log4j2.properties" <<LOG
status = error
appender.c.type = Console
appender.c.name = C
appender.c.layout.type = PatternLayout
appender.c.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = $level
rootLogger.appenderRef.c.ref = C
LOG
    touch "$tmp/lib/.complete"
    mkdir -p "$(dirname "$folder")"
    mv -T "$tmp/lib" "$folder" 2>/dev/null || [[ -f $folder/.complete ]] || die "cannot put the jars into $folder"
    rm -rf "$tmp"
}
