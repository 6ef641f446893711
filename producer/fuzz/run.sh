#!/usr/bin/env bash
# Fuzzes what devices send. Stable Rust is enough; needs a C++ compiler.
#
#   producer/fuzz/run.sh [SECONDS [FORMAT..]]   each format for so long (60), from producer/fuzz/corpus on
#
# What is new stays in found/FORMAT, a payload that fails in found/FORMAT-crash-*. Such a payload belongs into the corpus once the fault is
# mended, under a name READINGS-DEAD-what: how many readings and how many dead rows it becomes. The tests replay the corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
formats=("${@:2}")
[[ ${#formats[@]} -gt 0 ]] || mapfile -t formats < <(ls corpus)

# libFuzzer's counters and comparisons. With the target named, they are left out of build scripts and macros, which could not be linked.
counters=(-Cpasses=sancov-module -Ccodegen-units=1)
for pass in level=4 inline-8bit-counters pc-table trace-compares; do
    counters+=("-Cllvm-args=-sanitizer-coverage-$pass")
done
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${counters[*]}" cargo build --release --target "$host"

for format in "${formats[@]}"; do
    mkdir -p "found/$format"
    echo "== $format, $seconds s"
    TIDEMARK_FUZZ_TARGET=$format "target/$host/release/target" "found/$format" "corpus/$format" -max_total_time="$seconds" -max_len=65536 \
        -timeout=10 -rss_limit_mb=1024 -artifact_prefix="found/$format-" -print_final_stats=1 >"found/$format.log" 2>&1 ||
        { tail -20 "found/$format.log"; exit 1; }
    grep -E "stat::(number_of_executed_units|new_units_added|peak_rss_mb)" "found/$format.log"
done
