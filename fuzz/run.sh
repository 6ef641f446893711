#!/usr/bin/env bash
# Fuzzes the places where the embedded log reads bytes from elsewhere. Stable Rust is enough; needs a C++ compiler.
#
#   fuzz/run.sh [SECONDS [TARGET..]]   each target for so long (60), beginning with what is in fuzz/corpus
#
# What is found new stays in fuzz/found/TARGET, and an input that fails in fuzz/found/TARGET-crash-*. Such an input belongs into
# fuzz/corpus/TARGET once the fault is mended: the tests replay that folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
targets=("${@:2}")
[[ ${#targets[@]} -gt 0 ]] || mapfile -t targets < <(ls corpus)

# Coverage counters in our own code and its dependencies, where libFuzzer looks for them.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
# With a target named, build scripts and macros are built without the counters, which they could not link.
RUSTFLAGS=$(echo $coverage) cargo build --release --target "$host"

for target in "${targets[@]}"; do
    mkdir -p "found/$target"
    echo "== $target, $seconds s"
    TIDEMARK_FUZZ_TARGET=$target "target/$host/release/target" "found/$target" "corpus/$target" -max_total_time="$seconds" \
        -rss_limit_mb=1024 -malloc_limit_mb=512 -timeout=10 -max_len=65536 -artifact_prefix="found/$target-" -print_final_stats=1 2>&1 |
        grep -E "panicked|ERROR|SUMMARY|stat::number_of_executed_units|stat::peak_rss_mb|DONE|artifact|assertion" || true
    ! ls "found/$target"-* >/dev/null 2>&1 || { echo "$target has failed: see fuzz/found" >&2; exit 1; }
done
