#!/usr/bin/env bash
# Build ggml's CPU backend with a sanitizer, and run check.cpp on it.
#
#   sanitize.sh WHISPER_CPP_DIR BUILD_DIR ADDRESS|THREAD MAX_THREADS [-DGGML_OPTION=VALUE ...]
#
# The options name the processor; without any it is this one.
set -euo pipefail

source_dir=$1 build_dir=$2 sanitizer=$3 threads=$4
shift 4
processor=(-DGGML_NATIVE=ON)
if [ "$#" -gt 0 ]; then
    processor=(-DGGML_NATIVE=OFF "$@")
fi
flag=-fsanitize=${sanitizer,,}
openmp=ON
if [ "$sanitizer" = THREAD ]; then
    openmp=OFF # it does not know the barriers of libgomp: ggml's own threads instead
fi
cmake -S "$source_dir" -B "$build_dir" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_SHARED_LIBS=OFF "${processor[@]}" \
    "-DGGML_OPENMP=$openmp" "-DGGML_SANITIZE_$sanitizer=ON" -DWHISPER_BUILD_EXAMPLES=OFF -DWHISPER_BUILD_TESTS=OFF >/dev/null
cmake --build "$build_dir" --parallel "$(nproc)" --target ggml-cpu ggml-base >"$build_dir/log" 2>&1
c++ -O1 -g -std=c++17 "$flag" -I "$source_dir/ggml/include" "$(dirname -- "$0")/check.cpp" \
    "$build_dir/ggml/src/libggml-cpu.a" "$build_dir/ggml/src/libggml-base.a" -lgomp -lpthread -ldl -lm -o "$build_dir/check"
"$build_dir/check" "$threads"
